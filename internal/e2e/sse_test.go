package e2e

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"
)

// follower reads the live log of a task to its end, over as many connections as it takes: it comes back with the id of
// the last event it saw, as a browser does.
type follower struct {
	events []event       // read after done
	done   chan struct{} // closed after the event "end"
}

type event struct{ id, name, data string }

// follow starts a follower; it ends with the test at the latest.
func follow(t *testing.T, s *server, taskID string) *follower {
	ctx, cancel := context.WithCancel(context.Background())
	f := &follower{done: make(chan struct{})}
	go func() {
		defer close(f.done)
		last := ""
		url, token := s.url("/api/release/tasks/"+taskID+"/logs"), s.token
		for ctx.Err() == nil {
			var ended bool
			if last, ended = f.read(ctx, url, token, last); ended {
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond): // between two tries, as EventSource's retry
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-f.done
	})
	return f
}

// read takes events from one connection. It gives the id to come back with, and whether there is nothing to come back for.
func (f *follower) read(ctx context.Context, url, token, last string) (id string, ended bool) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return last, false
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "text/event-stream")
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return last, false // the server is down
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return last, false
	}
	var e event
	var data []string
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "id":
			e.id = value
		case "event":
			e.name = value
		case "data":
			data = append(data, value)
		case "":
			if lines.Text() != "" {
				continue // a comment, such as a keep-alive
			}
			if len(data) > 0 {
				e.data = strings.Join(data, "\n")
				f.events = append(f.events, e)
				if e.id != "" {
					last = e.id
				}
				if e.name == "end" {
					return last, true
				}
			}
			e, data = event{}, nil
		}
	}
	return last, false
}
