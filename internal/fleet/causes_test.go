package fleet

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// A summary tells failures apart, whatever they are wrapped in.
func TestCauses(t *testing.T) {
	for want, errs := range map[string][]error{
		"full":               {refusal(&quicflowv1.Refusal{Code: quicflowv1.RefusalCode_REFUSAL_CODE_FULL})},
		"duplicate_identity": {refusal(&quicflowv1.Refusal{Code: quicflowv1.RefusalCode_REFUSAL_CODE_DUPLICATE_IDENTITY})},
		"overloaded": {
			refusal(&quicflowv1.Refusal{Code: quicflowv1.RefusalCode_REFUSAL_CODE_OVERLOADED}),
			&quic.ApplicationError{Remote: true, ErrorCode: wire.CloseOverloaded},
		},
		"heartbeat":          {&quic.ApplicationError{Remote: true, ErrorCode: wire.CloseHeartbeat}},
		"closed":             {&quic.ApplicationError{Remote: true, ErrorCode: 99}, &quic.ApplicationError{Remote: true}},
		"connection_refused": {&quic.TransportError{Remote: true, ErrorCode: quic.ConnectionRefused}},
		"tls":                {&quic.TransportError{ErrorCode: 0x100 + 42}},
		"transport":          {&quic.TransportError{ErrorCode: quic.InternalError}},
		"reset":              {&quic.StatelessResetError{}},
		"handshake_timeout":  {&quic.HandshakeTimeoutError{}},
		"idle_timeout":       {&quic.IdleTimeoutError{}},
		"silent":             {errSilent},
		"stuck":              {errStuck},
		"goodbye":            {errGoodbye},
		"welcome_timeout":    {os.ErrDeadlineExceeded},
		"other":              {errNeither, errors.New("anything else")},
	} {
		for _, err := range errs {
			require.Equal(t, want, causeOf(fmt.Errorf("dial: %w", err)), "%v", err)
		}
	}
}

// Each close code there is has a name.
func TestEveryCloseCodeHasAName(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../wire/wire.go", nil, 0)
	require.NoError(t, err)
	codes := 0
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(spec.Names[0].Name, "Close") {
			codes++
		}
		return true
	})
	require.Greater(t, codes, 5)
	require.Len(t, closeCodes, codes)
}
