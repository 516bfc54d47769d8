package hub

import (
	"context"
	"errors"
	"fmt"

	"github.com/quic-go/quic-go"

	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// What Request can end in, beside the caller's own context. In all but ErrPromiseTimeout and ErrSessionLost nothing was sent.
var (
	ErrNotConnected    = errors.New("agent is not connected to this hub")
	ErrDraining        = errors.New("hub is draining") // a request that was on its way may have arrived
	ErrTooManyPromises = errors.New("too many requests await an answer")
	ErrBusy            = errors.New("agent does not read what it is sent")
	ErrSessionLost     = errors.New("session ended before the answer came")
	ErrTooManyTails    = errors.New("as many as the agent allows read output of this host already")
)

// AgentError is what an agent itself says of a request that it did not carry out.
type AgentError struct {
	Code    quicflowv1.FailureCode
	Message string
}

func (e *AgentError) Error() string { return e.Message }

// ErrPromiseTimeout reports that no answer came in time. It also matches context.DeadlineExceeded.
var ErrPromiseTimeout error = timeoutError{}

type timeoutError struct{}

func (timeoutError) Error() string        { return "no answer in time" }
func (timeoutError) Timeout() bool        { return true }
func (timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// Why a session ended, as OnDisconnect and OnError report it. A session that an agent left on purpose ends in ErrGoodbye.
var (
	ErrGoodbye       = errors.New("agent said goodbye")
	ErrTakenOver     = errors.New("a newer session of the same agent took over")
	ErrHeartbeatLost = errors.New("heartbeats were missed")
	ErrProtocol      = errors.New("protocol violation")
	ErrNotStored     = errors.New("hub could not store what the agent sent")
	ErrRevoked       = errors.New("certificate is revoked or not known")
	ErrNetwork       = errors.New("connection was lost")
)

// endError is why a session ends, with the close code that tells its agent.
type endError struct {
	code quic.ApplicationErrorCode
	err  error
}

func (e *endError) Error() string { return e.err.Error() }
func (e *endError) Unwrap() error { return e.err }

func end(code quic.ApplicationErrorCode, err error) *endError { return &endError{code: code, err: err} }

// violation reports a peer that broke the protocol.
func violation(format string, args ...any) *endError {
	return end(wire.CloseProtocol, fmt.Errorf("%w: %w", ErrProtocol, fmt.Errorf(format, args...)))
}

// maxReason keeps the reason phrase of a close frame within one packet.
const maxReason = 500

// closeConn closes a connection, telling the peer why.
func closeConn(conn *quic.Conn, cause *endError) {
	reason := cause.Error()
	_ = conn.CloseWithError(cause.code, reason[:min(len(reason), maxReason)]) // it reports only that it was closed before
}
