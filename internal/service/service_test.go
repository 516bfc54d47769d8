package service

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder makes services that write down what happens to them.
type recorder struct {
	mu     sync.Mutex
	events []string
}

func (r *recorder) note(event string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, event)
}

func (r *recorder) service(name string, startErr, stopErr error) Service {
	return Service{
		Name:  name,
		Start: func(context.Context) error { r.note("+" + name); return startErr },
		Stop:  func(context.Context) error { r.note("-" + name); return stopErr },
	}
}

func TestGroupStopsInReverse(t *testing.T) {
	var g Group
	r := &recorder{}
	broken := errors.New("broken")
	require.NoError(t, g.Start(t.Context(), r.service("a", nil, nil)))
	require.NoError(t, g.Start(t.Context(), r.service("b", nil, broken)))
	require.NoError(t, g.Start(t.Context(), Service{Name: "nothing to do"}))
	err := g.Start(t.Context(), r.service("c", broken, nil))
	require.ErrorIs(t, err, broken)
	require.ErrorContains(t, err, "start c")

	err = g.Stop(t.Context())
	require.ErrorIs(t, err, broken)
	require.ErrorContains(t, err, "stop b")
	require.Equal(t, []string{"+a", "+b", "+c", "-b", "-a"}, r.events)

	require.NoError(t, g.Stop(t.Context()))
	require.ErrorIs(t, g.Start(t.Context(), r.service("d", nil, nil)), ErrStopped)
	require.Len(t, r.events, 5)
}

// Whatever races, what was started is stopped, once.
func TestGroupRace(t *testing.T) {
	for range 200 {
		var g Group
		r := &recorder{}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { _ = g.Start(t.Context(), r.service("x", nil, nil)) })
			wg.Go(func() { _ = g.Stop(t.Context()) })
		}
		wg.Wait()
		require.NoError(t, g.Stop(t.Context()))
		started, stopped := 0, 0
		for _, e := range r.events {
			if e == "+x" {
				started++
			} else {
				stopped++
			}
		}
		require.Equal(t, started, stopped)
	}
}

func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := errors.New("not yet")
		starting, cancelStart := context.WithCancel(t.Context())
		l := Loop("loop", func(ctx context.Context) {
			<-ctx.Done()
			ended = context.Cause(ctx)
		})
		require.NoError(t, l.Start(starting))
		cancelStart() // bounds the start alone
		synctest.Wait()
		require.ErrorContains(t, ended, "not yet")
		require.NoError(t, l.Stop(t.Context()))
		require.ErrorIs(t, ended, ErrStopped)
	})
}

func TestLoopThatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		l := Loop("loop", func(context.Context) { <-release })
		require.NoError(t, l.Start(t.Context()))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, l.Stop(ctx), context.DeadlineExceeded)
		close(release)
	})
}

// A stream ends with Stop, a request that insists is cut off.
func TestHTTP(t *testing.T) {
	for name, tc := range map[string]struct{ stubborn bool }{"stream": {false}, "stubborn": {true}} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			release := make(chan struct{})
			s := HTTP("http", HTTPConfig{
				Listener: l,
				Drain:    100 * time.Millisecond,
				Failed:   func(err error) { t.Error(err) },
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.WriteHeader(http.StatusOK)
					_ = http.NewResponseController(w).Flush()
					<-r.Context().Done()
					if tc.stubborn {
						<-release
					}
				}),
			})
			require.NoError(t, s.Start(t.Context()))
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			res, err := (&http.Client{Transport: transport}).Get("http://" + l.Addr().String())
			require.NoError(t, err)
			require.NoError(t, s.Stop(t.Context()))
			_, err = io.ReadAll(res.Body)
			require.Equal(t, tc.stubborn, err != nil, "%v", err)
			_ = res.Body.Close()
			close(release)
		})
	}
}

func TestHTTPTellsWhenItFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	failed := make(chan error, 1)
	s := HTTP("http", HTTPConfig{Listener: l, Handler: http.NotFoundHandler(), Failed: func(err error) { failed <- err }})
	require.NoError(t, s.Start(t.Context()))
	require.NoError(t, l.Close())
	require.ErrorIs(t, <-failed, net.ErrClosed)
	require.NoError(t, s.Stop(t.Context()))
}
