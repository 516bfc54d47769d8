package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// Limits of messages.
const (
	MaxMessage        = 512 << 10 // bytes of a payload
	MaxMessageTimeout = 10 * time.Minute
	maxFailuresShown  = 20
)

// MessageSeconds is how long an answer is waited for.
type MessageSeconds float64

// Schema implements huma.SchemaProvider.
func (MessageSeconds) Schema(huma.Registry) *huma.Schema {
	least, most := 0.0, MaxMessageTimeout.Seconds()
	return &huma.Schema{
		Type: huma.TypeNumber, Format: "double", ExclusiveMinimum: &least, Maximum: &most,
		Description: "How long an answer is waited for, in seconds. Defaults to message.default_message_timeout",
	}
}

// MessageBody is what a message says.
type MessageBody struct {
	Type    string         `json:"type" minLength:"1" maxLength:"200" example:"ping"`
	Payload AnyJSON        `json:"payload,omitempty" doc:"A text is sent as it is, anything else as JSON"`
	Base64  string         `json:"payload_base64,omitempty" doc:"In place of payload: bytes"`
	Timeout MessageSeconds `json:"timeout,omitempty"`
}

// NewMessage is a message for one agent.
type NewMessage struct {
	ClientID string `json:"client_id"`
	Wait     *bool  `json:"wait,omitempty" doc:"Wait for the agent's answer. True where it is left out; without it is only known that the message was sent"`
	MessageBody
}

// NewBroadcast is a message for many agents.
type NewBroadcast struct {
	Selector string `json:"selector,omitempty" doc:"Such as env=prod,os=linux"`
	All      bool   `json:"all,omitempty" doc:"In place of a selector: every agent that is connected to this server"`
	MessageBody
}

// MessageOutcome says how a message fared.
type MessageOutcome string

// The outcomes of a message.
const (
	MessageAnswered MessageOutcome = "answered"
	MessageSent     MessageOutcome = "sent"    // no answer was wanted
	MessageFailed   MessageOutcome = "failed"  // the agent answered that it could not
	MessageOffline  MessageOutcome = "offline" // not connected to this server; nothing was sent
	MessageBusy     MessageOutcome = "busy"    // the server or the agent takes no more at the moment; nothing was sent
	MessageTimeout  MessageOutcome = "timeout" // no answer in time; whether the agent saw it is not known
	MessageLost     MessageOutcome = "lost"    // the connection ended before the answer; whether the agent saw it is not known
)

// MessageAnswer is how a message to one agent fared.
type MessageAnswer struct {
	Success  bool           `json:"success" doc:"It was answered, or sent where no answer was wanted"`
	ClientID string         `json:"client_id"`
	Outcome  MessageOutcome `json:"outcome" enum:"answered,sent,failed,offline,busy,timeout,lost"`
	Error    string         `json:"error,omitempty"`
	Type     string         `json:"type,omitempty" doc:"Of the answer"`
	Payload  AnyJSON        `json:"payload,omitempty" doc:"Of the answer: JSON where it is JSON, else text"`
	Base64   string         `json:"payload_base64,omitempty" doc:"In place of payload where the answer is not UTF-8"`
}

// BroadcastAnswer is how a message to many agents fared.
type BroadcastAnswer struct {
	Success    bool                   `json:"success" doc:"Every agent answered"`
	Total      int                    `json:"total"`
	Outcomes   map[MessageOutcome]int `json:"outcomes" doc:"How many agents by outcome: answered, failed, offline, busy, timeout, lost"`
	Failures   []MessageFailure       `json:"failures" doc:"The first 20 that did not answer"`
	DurationMS int64                  `json:"duration_ms"`
}

// MessageFailure is an agent that did not answer.
type MessageFailure struct {
	ClientID string         `json:"client_id"`
	Outcome  MessageOutcome `json:"outcome" enum:"failed,offline,busy,timeout,lost"`
	Error    string         `json:"error"`
}

func (s *server) registerMessages(api huma.API) {
	const ephemeral = "A message is sent once over the connection of the moment: it is neither stored nor repeated, and starts nothing that outlives it. " +
		"What is to be done once, and known afterwards, is a command. Only agents that are connected to this server are reached."
	tags := []string{"messages"}
	register(s, api, huma.Operation{
		OperationID: "send-message", Method: http.MethodPost, Path: "/api/send", Tags: tags,
		Summary: "Send a message to an agent", Description: ephemeral,
	}, func(ctx context.Context, in *struct{ Body NewMessage }) (*reply[MessageAnswer], error) {
		answer, err := s.send(ctx, in.Body)
		if err != nil {
			return nil, err
		}
		return replyWith(answer), nil
	})
	register(s, api, huma.Operation{
		OperationID: "broadcast-message", Method: http.MethodPost, Path: "/api/broadcast", Tags: tags,
		Summary: "Send a message to many agents and wait for their answers", Description: ephemeral,
	}, func(ctx context.Context, in *struct{ Body NewBroadcast }) (*reply[BroadcastAnswer], error) {
		answer, err := s.broadcast(ctx, in.Body)
		if err != nil {
			return nil, err
		}
		return replyWith(answer), nil
	})
}

// request gives the message, and the time of its answer if there is one.
func (m MessageBody) request(ctx context.Context) (*quicflowv1.Request, context.Context, context.CancelFunc, error) {
	payload := []byte(m.Payload)
	var words string
	switch {
	case m.Base64 != "" && len(m.Payload) > 0:
		return nil, nil, nil, release.Invalid("payload_base64", "give payload or payload_base64, not both")
	case m.Base64 != "":
		decoded, err := base64.StdEncoding.DecodeString(m.Base64)
		if err != nil {
			return nil, nil, nil, release.Invalid("payload_base64", "is not base64")
		}
		payload = decoded
	case json.Unmarshal(payload, &words) == nil:
		payload = []byte(words)
	}
	if len(payload) > MaxMessage {
		return nil, nil, nil, release.Invalid("payload", "has %d bytes; the limit is %d", len(payload), MaxMessage)
	}
	cancel := func() {}
	if m.Timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(float64(m.Timeout)*float64(time.Second)))
	}
	return &quicflowv1.Request{Body: &quicflowv1.Request_Message{Message: &quicflowv1.Message{Type: m.Type, Payload: payload}}}, ctx, cancel, nil
}

func (s *server) send(ctx context.Context, in NewMessage) (MessageAnswer, error) {
	req, limited, cancel, err := in.request(ctx)
	if err != nil {
		return MessageAnswer{}, err
	}
	defer cancel()
	if _, err := s.Store.ResolveTargets(ctx, release.Targets{Clients: []string{in.ClientID}}); err != nil {
		return MessageAnswer{}, renamed(err, map[string]string{"targets.clients": "client_id", "targets": "client_id"})
	}
	if in.Wait != nil && !*in.Wait {
		outcome, why := MessageSent, ""
		if err := s.Messages.Post(in.ClientID, req); err != nil {
			outcome, why = fate(err), told(err)
		}
		return MessageAnswer{Success: outcome == MessageSent, ClientID: in.ClientID, Outcome: outcome, Error: why}, nil
	}
	response, err := s.Messages.Request(limited, in.ClientID, req)
	outcome, why := judge(response, err)
	answer := MessageAnswer{Success: outcome == MessageAnswered, ClientID: in.ClientID, Outcome: outcome, Error: why}
	if m := response.GetMessage(); answer.Success && m != nil {
		answer.Type = validText(m.Type)
		switch {
		case len(m.Payload) == 0:
		case json.Valid(m.Payload) && utf8.Valid(m.Payload):
			answer.Payload = AnyJSON(m.Payload)
		case utf8.Valid(m.Payload):
			words, _ := json.Marshal(string(m.Payload)) // a text: cannot fail
			answer.Payload = words
		default:
			answer.Base64 = base64.StdEncoding.EncodeToString(m.Payload)
		}
	}
	return answer, nil
}

func (s *server) broadcast(ctx context.Context, in NewBroadcast) (BroadcastAnswer, error) {
	req, limited, cancel, err := in.request(ctx)
	if err != nil {
		return BroadcastAnswer{}, err
	}
	defer cancel()
	var clients []string
	switch {
	case in.All && in.Selector != "":
		return BroadcastAnswer{}, release.Invalid("all", "give a selector or all, not both")
	case in.All:
		if clients = s.Messages.Clients(); len(clients) == 0 {
			return BroadcastAnswer{}, release.Invalid("all", "picks no agent: none is connected to this server")
		}
	case in.Selector == "":
		return BroadcastAnswer{}, release.Invalid("selector", "is empty; give one, or all: true for every agent that is connected")
	default:
		if clients, err = s.Store.ResolveTargets(ctx, release.Targets{Selector: in.Selector}); err != nil {
			return BroadcastAnswer{}, renamed(err, map[string]string{"targets.selector": "selector", "targets": "selector"})
		}
	}
	began := s.Now()
	answer := BroadcastAnswer{Total: len(clients), Outcomes: map[MessageOutcome]int{}, Failures: []MessageFailure{}}
	for a := range s.Messages.Broadcast(limited, clients, req) {
		outcome, why := judge(a.Response, a.Err)
		answer.Outcomes[outcome]++
		if outcome != MessageAnswered && len(answer.Failures) < maxFailuresShown {
			answer.Failures = append(answer.Failures, MessageFailure{ClientID: a.ClientID, Outcome: outcome, Error: why})
		}
	}
	answer.Success = answer.Outcomes[MessageAnswered] == answer.Total
	answer.DurationMS = s.Now().Sub(began).Milliseconds()
	return answer, nil
}

// judge says how a message fared that an answer was waited for, and why not well.
func judge(response *quicflowv1.Response, err error) (MessageOutcome, string) {
	if err != nil {
		return fate(err), told(err)
	}
	if failure := response.GetFailure(); failure != nil {
		return MessageFailed, validText(failure.Message)
	}
	return MessageAnswered, ""
}

// fate gives the outcome of what the hub could not do.
func fate(err error) MessageOutcome {
	switch {
	case errors.Is(err, hub.ErrNotConnected):
		return MessageOffline
	case errors.Is(err, hub.ErrPromiseTimeout):
		return MessageTimeout
	case errors.Is(err, hub.ErrTooManyPromises), errors.Is(err, hub.ErrBusy):
		return MessageBusy
	}
	return MessageLost // or the hub is draining: it may have arrived
}

// told says why in the words of the hub, which name no secret.
func told(err error) string {
	for _, known := range []error{hub.ErrNotConnected, hub.ErrPromiseTimeout, hub.ErrTooManyPromises, hub.ErrBusy, hub.ErrDraining, hub.ErrSessionLost} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return "the message was given up"
}

// validText is text of an agent, which may send any bytes.
func validText(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }
