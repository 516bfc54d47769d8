package command_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/command"
	"github.com/quicflow/quicflow/internal/release"
)

func TestDecodeNamesTheField(t *testing.T) {
	type payload struct {
		Name  string            `json:"name"`
		Count uint              `json:"count"`
		All   bool              `json:"all"`
		Env   map[string]string `json:"env"`
	}
	for text, want := range map[string]string{
		``: "", `{}`: "", ` {"name":"x","count":3,"all":true,"env":{"a":"b"}} `: "",
		`{"named":"x"}`:       "payload.named: this command has no such field",
		`{"count":"3"}`:       "payload.count: it is a string, not a whole number of 0 or more",
		`{"count":-1}`:        "payload.count: it is a number -1, not a whole number of 0 or more",
		`{"all":1}`:           "payload.all: it is a number, not true or false",
		`{"name":{}}`:         "payload.name: it is an object, not a string",
		`{"env":{"a":1}}`:     "payload.env: it is a number, not a string",
		`[]`:                  "payload: it is not a JSON object",
		`"x"`:                 "payload: it is not a JSON object",
		`{"name":"x"} {}`:     "payload: something follows the JSON object",
		`{"name":"x"`:         "payload: unexpected EOF",
		"{\"name\":\"\xff\"}": "payload: it is not a JSON object",
		`{"name":"` + strings.Repeat("x", command.MaxPayload) + `"}`: "payload: it has 262155 bytes, at most 262144 are allowed",
	} {
		err := command.Decode([]byte(text), new(payload))
		if want == "" {
			require.NoError(t, err, text)
			continue
		}
		require.ErrorIs(t, err, release.ErrInvalid)
		require.EqualError(t, err, want)
	}
}
