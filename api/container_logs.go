package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// ContainerLogsQuery is what is wanted of the output of what runs on a host.
type ContainerLogsQuery struct {
	Tail       int64  `query:"tail" default:"200" minimum:"-1" doc:"Lines at the end; -1 is all"`
	Since      string `query:"since" doc:"How long ago (10m), or when (RFC 3339)"`
	Follow     bool   `query:"follow" doc:"Go on with what is written later"`
	Timestamps bool   `query:"timestamps"`
}

func (s *server) registerContainerLogs(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "container-logs", Method: http.MethodGet, Path: "/api/release/tasks/{task_id}/targets/{client_id}/container-logs", Tags: []string{"tasks"},
		Summary:     "The output of what runs of the task's project on a host",
		Description: "Of a container project that of its container, of a Kubernetes project that of its pods. It is read on the host now, not stored; a last line that begins with `quicflow: ` says why there is no more.",
		Responses:   map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{"text/plain": {Schema: &huma.Schema{Type: huma.TypeString}}}}},
	}, func(ctx context.Context, in *struct {
		TaskPath
		ClientID string `path:"client_id"`
		ContainerLogsQuery
	}) (*streamOutput, error) {
		return s.containerLogs(ctx, in.ID, in.ClientID, in.ContainerLogsQuery)
	})
}

func (s *server) containerLogs(ctx context.Context, taskID, clientID string, q ContainerLogsQuery) (*streamOutput, error) {
	task, err := s.Store.Task(ctx, taskID)
	if err != nil {
		return nil, err
	}
	switch project, err := s.Store.Project(ctx, task.ProjectID); {
	case err != nil:
		return nil, err
	case project.Type == release.TypeScript || project.Type == release.TypeGit:
		return nil, release.Invalid("task_id", "%s is a %s project, of which nothing runs whose output could be read; see the task's log", project.Name, project.Type)
	}
	asked := &quicflowv1.TailLogs{Tail: max(0, q.Tail), Follow: q.Follow, Timestamps: q.Timestamps}
	if asked.SinceUnixMs, err = sinceMillis(q.Since, s.Now()); err != nil {
		return nil, err
	}
	there := release.Installation{ProjectID: task.ProjectID, Project: task.Project, ClientID: clientID, VersionID: task.VersionID}
	installed, _, err := s.Store.Installations(ctx, store.InstallationFilter{Project: task.ProjectID, ClientID: clientID})
	if err != nil {
		return nil, err
	}
	if len(installed) > 0 && installed[0].VersionID != "" {
		there = installed[0]
	}
	if asked.What, err = newDeployed(s.Store).of(ctx, there); err != nil {
		return nil, err
	}
	return &streamOutput{Body: func(ctx huma.Context) {
		r, w := humachi.Unwrap(ctx)
		out := &liveWriter{w: w, control: http.NewResponseController(w)}
		silent := time.AfterFunc(silentStart, out.begin) // so that a reader of what is quiet knows that it is connected
		defer silent.Stop()
		if err := s.Messages.TailLogs(r.Context(), clientID, asked, out); err != nil {
			s.endTail(r.Context(), out, clientID, err)
		}
		out.begin()
	}}, nil
}

// endTail says why there is no more: with the status while nothing was written, as a last line afterwards.
func (s *server) endTail(ctx context.Context, out *liveWriter, clientID string, err error) {
	if ctx.Err() != nil || out.hasFailed() {
		return // the reader has gone
	}
	why, status := told(err), http.StatusServiceUnavailable
	var says *hub.AgentError
	switch {
	case errors.As(err, &says):
		why, status = validText(says.Message), http.StatusConflict
	case errors.Is(err, hub.ErrTooManyTails):
		why, status = hub.ErrTooManyTails.Error(), http.StatusTooManyRequests
	}
	s.Logger.InfoContext(ctx, "output of a host ended", "client_id", clientID, "error", err)
	if out.refuse(status, "agent "+clientID+": "+why) {
		return
	}
	_, _ = fmt.Fprintf(out, "quicflow: %s\n", why)
}

// liveWriter passes output on to a reader at once. A reader that takes nothing for a while is cut off.
type liveWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController

	mu            sync.Mutex
	begun, failed bool
}

const (
	// liveWriteLimit is shorter than that of streams that resume: what waits here holds up the agent's connection.
	liveWriteLimit = 10 * time.Second
	// silentStart is when an answer begins that has nothing to say yet.
	silentStart = time.Second
)

func (l *liveWriter) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.beginLocked()
}

func (l *liveWriter) beginLocked() {
	if l.begun {
		return
	}
	l.begun = true
	l.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	l.w.Header().Set("X-Content-Type-Options", "nosniff")
	l.w.Header().Set("X-Accel-Buffering", "no") // proxies, do not collect
	l.w.WriteHeader(http.StatusOK)
	_ = l.control.Flush()
}

// refuse answers with a problem, unless an answer has begun.
func (l *liveWriter) refuse(status int, detail string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.begun {
		return false
	}
	l.begun = true
	writeProblem(l.w, status, detail)
	return true
}

func (l *liveWriter) hasFailed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

func (l *liveWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.beginLocked()
	_ = l.control.SetWriteDeadline(time.Now().Add(liveWriteLimit))
	n, err := l.w.Write(p)
	if err == nil {
		err = l.control.Flush()
	}
	l.failed = l.failed || err != nil
	return n, err
}

// sinceMillis reads "10m" or a time.
func sinceMillis(text string, now time.Time) (int64, error) {
	if text == "" {
		return 0, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago).UnixMilli(), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return 0, release.Invalid("since", "%q is neither a duration such as 10m nor a time such as 2026-01-31T12:00:00Z", text)
	}
	return at.UnixMilli(), nil
}
