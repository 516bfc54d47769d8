package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/api"
	"github.com/quicflow/quicflow/api/apitest"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// Messages go to real agents over QUIC.
func TestMessages(t *testing.T) {
	s := apitest.Start(t)
	s.AddClients(1, nil) // client-1 is known, and not connected
	seen := make(chan string, 10)
	release := make(chan struct{})
	s.StartAgents(map[string]agent.Handler{
		"note": func(_ context.Context, m *quicflowv1.Message) (*quicflowv1.Message, error) {
			seen <- string(m.Payload)
			return &quicflowv1.Message{Type: "noted", Payload: []byte("thanks")}, nil
		},
		"bytes": func(context.Context, *quicflowv1.Message) (*quicflowv1.Message, error) {
			return &quicflowv1.Message{Type: "bytes", Payload: []byte{0xff, 0}}, nil
		},
		"wait": func(ctx context.Context, _ *quicflowv1.Message) (*quicflowv1.Message, error) {
			select {
			case <-release:
			case <-ctx.Done():
			}
			return nil, errors.New("too late")
		},
	}, "web-1", "web-2", "web-3")
	defer close(release)
	send := func(body string) api.MessageAnswer {
		t.Helper()
		status, text := do(t, s, "POST", "/api/send", body)
		require.Equal(t, 200, status, text)
		return read[api.MessageAnswer](t, text)
	}
	answer := send(`{"client_id":"web-1","type":"ping"}`)
	require.Equal(t, api.MessageAnswer{Success: true, ClientID: "web-1", Outcome: "answered", Type: "pong"}, answer)
	answer = send(`{"client_id":"web-1","type":"echo","payload":{"a":[1,9007199254740993]},"timeout":5}`)
	require.Contains(t, string(answer.Payload), "9007199254740993", "it comes back as it went")
	answer = send(`{"client_id":"web-2","type":"note","payload":"some text"}`)
	require.Equal(t, `"thanks"`, string(answer.Payload))
	require.Equal(t, "noted", answer.Type)
	require.Equal(t, "some text", <-seen)
	require.Equal(t, "/wA=", send(`{"client_id":"web-2","type":"bytes"}`).Base64)
	require.Equal(t, "/wA=", send(`{"client_id":"web-2","type":"echo","payload_base64":"/wA="}`).Base64)
	answer = send(`{"client_id":"web-2","type":"dance"}`)
	require.False(t, answer.Success)
	require.Equal(t, api.MessageFailed, answer.Outcome)
	require.Contains(t, answer.Error, "dance")
	answer = send(`{"client_id":"web-2","type":"wait","timeout":0.05}`)
	require.Equal(t, api.MessageAnswer{ClientID: "web-2", Outcome: "timeout", Error: "no answer in time"}, answer)
	answer = send(`{"client_id":"client-1","type":"ping"}`)
	require.Equal(t, api.MessageOffline, answer.Outcome)
	answer = send(`{"client_id":"web-3","type":"note","payload":"no answer wanted","wait":false}`)
	require.Equal(t, api.MessageAnswer{Success: true, ClientID: "web-3", Outcome: "sent"}, answer)
	require.Equal(t, "no answer wanted", <-seen)
	require.Equal(t, api.MessageOffline, send(`{"client_id":"client-1","type":"ping","wait":false}`).Outcome)

	broadcast := func(body string) api.BroadcastAnswer {
		t.Helper()
		status, text := do(t, s, "POST", "/api/broadcast", body)
		require.Equal(t, 200, status, text)
		return read[api.BroadcastAnswer](t, text)
	}
	all := broadcast(`{"type":"ping","all":true}`)
	require.True(t, all.Success)
	require.Equal(t, map[api.MessageOutcome]int{"answered": 3}, all.Outcomes)
	require.Empty(t, all.Failures)
	known := broadcast(`{"type":"note","selector":"*","payload":"x"}`)
	require.False(t, known.Success)
	require.Equal(t, 4, known.Total)
	require.Equal(t, map[api.MessageOutcome]int{"answered": 3, "offline": 1}, known.Outcomes)
	require.Equal(t, []api.MessageFailure{{ClientID: "client-1", Outcome: "offline", Error: "agent is not connected to this hub"}}, known.Failures)
	late := broadcast(`{"type":"wait","selector":"id=web-*","timeout":0.05}`)
	require.Equal(t, map[api.MessageOutcome]int{"timeout": 3}, late.Outcomes)

	for _, c := range []struct{ path, body, location string }{
		{"send", `{"type":"ping"}`, "client_id"}, {"send", `{"client_id":"ghost","type":"ping"}`, "client_id"},
		{"send", `{"client_id":"web-1","type":""}`, "type"}, {"send", `{"client_id":"web-1"}`, "type"},
		{"send", `{"client_id":"web-1","type":"ping","timeout":0}`, "timeout"}, {"send", `{"client_id":"web-1","type":"ping","timeout":601}`, "timeout"},
		{"send", `{"client_id":"web-1","type":"ping","payload_base64":"?"}`, "payload_base64"},
		{"send", `{"client_id":"web-1","type":"ping","payload":1,"payload_base64":"AA=="}`, "payload_base64"},
		{"send", `{"client_id":"web-1","type":"ping","payload":"` + strings.Repeat("x", api.MaxMessage+1) + `"}`, "payload"},
		{"send", `{"client_id":"web-1","type":"ping","wait":"no"}`, "wait"}, {"send", `{"client_id":"web-1","type":"ping","await":true}`, "await"},
		{"broadcast", `{"type":"ping"}`, "selector"}, {"broadcast", `{"type":"ping","all":false}`, "selector"},
		{"broadcast", `{"type":"ping","all":true,"selector":"*"}`, "all"}, {"broadcast", `{"type":"ping","selector":"env=none"}`, "selector"},
		{"broadcast", `{"type":"ping","selector":"=x"}`, "selector"}, {"broadcast", `{"selector":"*"}`, "type"},
	} {
		status, text := do(t, s, "POST", "/api/"+c.path, c.body)
		require.Equal(t, 422, status, text)
		require.Equal(t, "body."+c.location, read[problem](t, text).Errors[0].Location, text)
	}
	require.Empty(t, seenNow(seen, 3), "bad input sends nothing")
}

// seenNow drops what was expected, and gives what else there is.
func seenNow(seen <-chan string, expected int) (more []string) {
	for range expected {
		<-seen
	}
	for {
		select {
		case text := <-seen:
			more = append(more, text)
		default:
			return more
		}
	}
}

func TestBroadcastToNoOne(t *testing.T) {
	s := apitest.Start(t)
	status, text := do(t, s, "POST", "/api/broadcast", `{"type":"ping","all":true}`)
	require.Equal(t, 422, status, text)
	require.True(t, json.Valid([]byte(text)))
	require.Contains(t, text, "none is connected")
}
