package api

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/release"
)

const (
	eventsInterval = 250 * time.Millisecond // the shortest time between two events to one reader
	eventsReread   = 10 * time.Second       // in case something changed that nobody told: by time alone, or by another server
	eventsAlive    = 15 * time.Second
)

// EventsHello is the first event of GET /api/events.
type EventsHello struct {
	Version string `json:"version" doc:"Of the server"`
}

// EventsChanged says what has changed since the event before. Read again what you show of it.
type EventsChanged struct {
	Topics []string `json:"topics" doc:"clients, tasks and jobs (lists), projects (with their versions, environments and variables), schedules, system (its figures), and task/ID: a task or job, its hosts or its log"`
	All    bool     `json:"all,omitempty" doc:"More than can be named: read everything again"`
}

var changeEvents = map[string]reflect.Type{"EventsHello": typeOf[EventsHello](), "EventsChanged": typeOf[EventsChanged]()}

func (s *server) registerEvents(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "events", Method: http.MethodGet, Path: "/api/events", Tags: []string{"events"},
		Summary: "What changes, as it does",
		Description: "Server-Sent Events: `hello` (EventsHello) at first, then `changed` (EventsChanged), no more than four a second. " +
			"They say only that something changed; readers fetch what they show. There is nothing to resume: whoever was cut off reads " +
			"everything again after `hello`. Comments keep the connection alive. It ends when the login or the token does.",
		Responses: streamResponse,
	}, func(context.Context, *struct{}) (*streamOutput, error) {
		return &streamOutput{Body: func(ctx huma.Context) {
			r, w := humachi.Unwrap(ctx)
			s.serveEvents(r, newEventWriter(w))
		}}, nil
	})
	for name, t := range changeEvents {
		api.OpenAPI().Components.Schemas.Schema(t, true, name)
	}
}

// serveEvents tells one reader of changes until it has gone, or may not read any more.
func (s *server) serveEvents(r *http.Request, out *eventWriter) {
	ctx := r.Context()
	watch := s.Bus.Watch()
	defer watch.Close()
	if out.event("hello", "", EventsHello{Version: s.Version}) != nil || out.flush() != nil {
		return
	}
	reread, alive := time.NewTicker(eventsReread), time.NewTicker(eventsAlive)
	defer reread.Stop()
	defer alive.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	<-pause.C
	for {
		// Nothing is taken during the pause, so that it collects what comes.
		changed := watch.Changed()
		event := EventsChanged{}
		select {
		case <-ctx.Done():
			return
		case <-alive.C:
			if _, _, err := s.identify(r); errors.Is(err, release.ErrUnauthorized) {
				return
			}
			if out.write(": alive\n\n") != nil || out.flush() != nil {
				return
			}
			continue
		case <-reread.C:
			event.Topics = []string{bus.Clients, bus.Jobs, bus.Projects, bus.Schedules, bus.Tasks}
		case <-changed:
			event.Topics, event.All = watch.Take()
		}
		slices.Sort(event.Topics)
		if out.event("changed", "", event) != nil || out.flush() != nil {
			return
		}
		pause.Reset(eventsInterval)
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
	}
}
