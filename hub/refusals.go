package hub

import (
	"errors"
	"strings"

	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// Reasons of refusals, as the metric has them, beside the codes of Refusal and, with enrolPrefix, of EnrolError.
const (
	reasonHandshakes = "handshakes" // too many handshakes in progress
	reasonTakenOver  = "taken_over"
	reasonNetwork    = "network" // the connection was lost before Welcome
	reasonEnrolConns = "enrol_connections"
	enrolPrefix      = "enrol_"
)

var (
	reasonOverloaded = reasonOfCode(quicflowv1.RefusalCode_REFUSAL_CODE_OVERLOADED)
	reasonProtocol   = reasonOfCode(quicflowv1.RefusalCode_REFUSAL_CODE_PROTOCOL)
	reasonDraining   = reasonOfCode(quicflowv1.RefusalCode_REFUSAL_CODE_DRAINING)
)

func reasonOfCode(code quicflowv1.RefusalCode) string {
	return strings.ToLower(strings.TrimPrefix(code.String(), "REFUSAL_CODE_"))
}

func reasonOfEnrol(code quicflowv1.EnrolErrorCode) string {
	return enrolPrefix + strings.ToLower(strings.TrimPrefix(code.String(), "ENROL_ERROR_CODE_"))
}

// refusalReasons are all there are.
func refusalReasons() []string {
	all := []string{reasonHandshakes, reasonTakenOver, reasonNetwork, reasonEnrolConns}
	for code := range quicflowv1.RefusalCode_name {
		if code != 0 {
			all = append(all, reasonOfCode(quicflowv1.RefusalCode(code)))
		}
	}
	for code := range quicflowv1.EnrolErrorCode_name {
		if code != 0 {
			all = append(all, reasonOfEnrol(quicflowv1.EnrolErrorCode(code)))
		}
	}
	return all
}

// reasonOf is why a session was not accepted.
func reasonOf(err error) string {
	var r *refusal
	switch {
	case errors.As(err, &r):
		return reasonOfCode(r.code)
	case errors.Is(err, ErrTakenOver):
		return reasonTakenOver
	case errors.Is(err, ErrDraining):
		return reasonDraining
	case errors.Is(err, ErrProtocol):
		return reasonProtocol
	}
	return reasonNetwork
}
