// Package command has what the commands of an agent are made of: types that a job names, with a payload and a result in
// JSON.
package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// The limits of a command.
const (
	// MaxPayload bounds a payload, in bytes.
	MaxPayload = 256 << 10
	// MaxResult bounds a result that is sent as such, in bytes of JSON. A larger one is what the command wrote to stdout.
	MaxResult = 8 << 10
	// MaxLogResult bounds a result that is written to stdout.
	MaxLogResult = 16 << 20
)

// Command is a type of command.
type Command struct {
	// Run carries out one command. Required.
	Run Func
	// ReadOnly says that it changes nothing on the host, so that it may run again where nobody saw its end: its intent is
	// then stored together with its result. Defaults to false: the intent is stored before Run, which is called once.
	ReadOnly bool
	// Light says that it ends at once, so that it takes no place among the steps that an agent runs at the same time, and is
	// answered by an agent that is full. Defaults to false.
	Light bool
}

// Func carries out one command, in a goroutine of its own; several run at the same time. ctx ends when the command's time is
// over, when it is cancelled and when the agent stops; Func returns soon then.
//
// The result is encoded as JSON; nil is none. An error makes the command a failed one, with the result beside it. What Decode
// found wrong is to be returned before anything is done.
type Func func(ctx context.Context, call *Call) (result any, err error)

// Call is one command to be carried out.
type Call struct {
	StepID  string
	Type    string
	Payload []byte // a JSON object, or empty

	// Output gives one of the command's streams, stdout or stderr, kept and sent like a script's. Nothing is stored for a
	// command that is ReadOnly until the first call.
	Output func(quicflowv1.Stream) (io.Writer, error)
}

// Decode reads the payload into the struct that v points to, with its json tags. Its error, release.ErrInvalid, names the
// field that is wrong or not known.
func (c *Call) Decode(v any) error { return Decode(c.Payload, v) }

// Decode reads a payload; see Call.Decode.
func Decode(payload []byte, v any) error {
	payload = bytes.TrimSpace(payload)
	switch {
	case len(payload) > MaxPayload:
		return release.Invalid("payload", "it has %d bytes, at most %d are allowed", len(payload), MaxPayload)
	case len(payload) == 0:
		return nil
	case payload[0] != '{' || !utf8.Valid(payload):
		return release.Invalid("payload", "it is not a JSON object")
	}
	decoder := json.NewDecoder(bytes.NewReader(payload))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(v)
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong):
		return release.Invalid("payload."+wrong.Field, "it is %s, not %s", article(wrong.Value), kind(wrong))
	case err != nil:
		if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
			return release.Invalid("payload."+strings.Trim(field, `"`), "this command has no such field")
		}
		return release.Invalid("payload", "%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return release.Invalid("payload", "something follows the JSON object")
	}
	return nil
}

func article(noun string) string {
	if strings.ContainsAny(noun[:1], "aeiou") {
		return "an " + noun
	}
	return "a " + noun
}

func kind(e *json.UnmarshalTypeError) string {
	switch name := e.Type.Kind().String(); {
	case name == "bool":
		return "true or false"
	case name == "string":
		return "a string"
	case name == "map" || name == "struct":
		return "an object"
	case name == "slice":
		return "a list"
	case strings.HasPrefix(name, "uint"):
		return "a whole number of 0 or more"
	case strings.HasPrefix(name, "int"):
		return "a whole number"
	default:
		return "a number"
	}
}
