package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sync/errgroup"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

const (
	// maxDescribed is how many projects one request may ask for.
	maxDescribed = 100
	// tailTimeout bounds the wait for a hub to say what it opened a stream for.
	tailTimeout = 10 * time.Second
	// maxTailData bounds a frame of output, in bytes of data.
	maxTailData = 32 << 10
)

var errNotObserved = errors.New("this agent cannot look at what it deployed")

// describe answers what runs of some projects.
func (s *session) describe(ctx context.Context, asked *quicflowv1.Describe) *quicflowv1.Response {
	observer, ok := s.agent.cfg.Executor.(Observer)
	switch {
	case !ok:
		return failure(quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED, errNotObserved.Error())
	case len(asked.GetProjects()) > maxDescribed:
		return failure(quicflowv1.FailureCode_FAILURE_CODE_INVALID, fmt.Sprintf("%d projects are asked for; the limit is %d", len(asked.Projects), maxDescribed))
	}
	described, size := &quicflowv1.Described{}, 0
	for _, what := range asked.GetProjects() {
		running := observer.Describe(ctx, what)
		text, err := json.Marshal(running)
		if err != nil {
			return failure(quicflowv1.FailureCode_FAILURE_CODE_INTERNAL, err.Error())
		}
		if size += len(text); size > maxAnswer {
			return failure(quicflowv1.FailureCode_FAILURE_CODE_INTERNAL, "what runs takes more than an answer may; ask for fewer projects")
		}
		described.Running = append(described.Running, text)
	}
	return &quicflowv1.Response{Body: &quicflowv1.Response_Described{Described: described}}
}

// maxRefs bounds what an answer lists.
const maxRefs = 5000

// listRefs answers what a repository has.
func (s *session) listRefs(ctx context.Context, deploy *quicflowv1.DeployStep) *quicflowv1.Response {
	lister, ok := s.agent.cfg.Executor.(RefLister)
	if !ok {
		return failure(quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED, errNotObserved.Error())
	}
	found, err := lister.Refs(ctx, deploy)
	if err != nil {
		return failure(failureCode(err), err.Error())
	}
	refs := &quicflowv1.Refs{Truncated: len(found) > maxRefs}
	for _, r := range found[:min(len(found), maxRefs)] {
		refs.Refs = append(refs.Refs, &quicflowv1.Ref{Name: r.Name, Kind: r.Kind, Commit: r.Commit, Default: r.Default})
	}
	return &quicflowv1.Response{Body: &quicflowv1.Response_Refs{Refs: refs}}
}

// acceptTails takes the streams that the hub opens until the session ends.
func (s *session) acceptTails(ctx context.Context, group *errgroup.Group) error {
	for {
		stream, err := s.conn.AcceptStream(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept stream: %w", err)
		}
		group.Go(func() error {
			s.tail(ctx, stream)
			return nil
		})
	}
}

// tail writes the output of what runs to a stream, until it ends, the hub has enough or the session ends.
func (s *session) tail(ctx context.Context, stream *quic.Stream) {
	defer stream.CancelRead(0)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(stream.Context(), cancel)() // the hub stopped reading
	stopWriting := context.AfterFunc(ctx, func() { stream.CancelWrite(0) })
	defer stopWriting()

	_ = stream.SetReadDeadline(time.Now().Add(tailTimeout))
	asked := new(quicflowv1.TailLogs)
	if err := wire.NewReader(stream, wire.MaxFrame).Read(asked); err != nil {
		s.agent.cfg.Logger.Warn("the hub did not say what it opened a stream for", "error", err)
		stream.CancelWrite(0)
		return
	}
	err := errNotObserved
	if observer, ok := s.agent.cfg.Executor.(Observer); ok {
		options := executor.LogOptions{Tail: int(max(0, asked.Tail)), Follow: asked.Follow, Timestamps: asked.Timestamps}
		if asked.SinceUnixMs > 0 {
			options.Since = time.UnixMilli(asked.SinceUnixMs)
		}
		err = observer.Logs(ctx, asked.GetWhat(), options, tailWriter{stream})
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		last := &quicflowv1.TailData{Failure: failure(failureCode(err), err.Error()).GetFailure()}
		if wire.WriteFrame(stream, last) != nil {
			return
		}
	}
	stopWriting()
	_ = stream.Close()
}

// tailWriter writes output in frames.
type tailWriter struct{ stream *quic.Stream }

var _ io.Writer = tailWriter{}

func (w tailWriter) Write(p []byte) (int, error) {
	for written := 0; written < len(p); {
		some := p[written:min(len(p), written+maxTailData)]
		if err := wire.WriteFrame(w.stream, &quicflowv1.TailData{Data: some}); err != nil {
			return written, err
		}
		written += len(some)
	}
	return len(p), nil
}
