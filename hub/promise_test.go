package hub_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/telemetry"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

func counted(reg *prometheus.Registry) func(*hub.Config) {
	return func(c *hub.Config) {
		var err error
		if c.Metrics, err = hub.NewMetrics(reg); err != nil {
			panic(err)
		}
	}
}

// value reads a metric.
func value(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.Metric[0].GetCounter().GetValue() + f.Metric[0].GetGauge().GetValue()
		}
	}
	require.FailNow(t, "no metric "+name)
	return 0
}

// settled checks the accounts: what was created was completed, timed out or failed.
func settled(t *testing.T, reg *prometheus.Registry, completed, timedOut, failed float64) {
	t.Helper()
	require.Equal(t, completed, value(t, reg, telemetry.PromiseCompletedTotal), "completed")
	require.Equal(t, timedOut, value(t, reg, telemetry.PromiseTimeoutsTotal), "timed out")
	require.Equal(t, failed, value(t, reg, telemetry.PromiseFailedTotal), "failed")
	require.Equal(t, completed+timedOut+failed, value(t, reg, telemetry.PromiseCreatedTotal), "created")
	require.Zero(t, value(t, reg, telemetry.PromiseActive))
}

// ask sends a request in the background.
func (b *bench) ask(ctx context.Context, clientID string) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := b.Request(ctx, clientID, ping())
		done <- err
	}()
	return done
}

func outcomeOf(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		require.FailNow(t, "the request does not end")
		return nil
	}
}

func TestRequestIsAnswered(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := start(t, counted(reg))
	a := b.connect(b.join("web-1"))
	const n = 100
	var wg sync.WaitGroup
	shared := ping()
	for range n {
		wg.Go(func() {
			response, err := b.Request(t.Context(), "web-1", shared)
			if err != nil || response.GetMessage().GetType() != "pong" {
				t.Errorf("got %v, %v", response, err)
			}
		})
	}
	ids := map[uint64]bool{}
	for range n {
		ids[a.receive().GetRequest().GetId()] = true
	}
	require.Len(t, ids, n, "each request has an id of its own")
	for id := range ids { // in any order
		a.answer(id)
	}
	wg.Wait()
	require.Zero(t, shared.Id, "the request is not changed")
	settled(t, reg, n, 0, 0)

	a.answer(12345) // no one waits for that
	a.alive()
	for _, name := range []string{telemetry.ConnectedClients, telemetry.TotalConnections} {
		require.EqualValues(t, 1, value(t, reg, name), name)
	}
	require.Greater(t, value(t, reg, telemetry.MessagesSentTotal), float64(n))
	require.Greater(t, value(t, reg, telemetry.MessagesReceivedTotal), float64(n))
	require.Greater(t, value(t, reg, telemetry.BytesSentTotal), float64(n))
	require.Greater(t, value(t, reg, telemetry.BytesReceivedTotal), float64(n))
}

func TestRequestTimesOut(t *testing.T) {
	reg := prometheus.NewRegistry()
	hooked := make(chan string, 1)
	b := start(t, counted(reg), func(c *hub.Config) {
		c.DefaultTimeout = 30 * time.Millisecond
		c.Hooks.OnPromiseTimeout = func(e hub.Event, wait time.Duration) { hooked <- fmt.Sprint(e.ClientID, wait >= 30*time.Millisecond) }
	})
	a := b.connect(b.join("web-1"))
	_, err := b.Request(t.Context(), "web-1", ping())
	require.ErrorIs(t, err, hub.ErrPromiseTimeout)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "web-1")
	require.Equal(t, "web-1true", <-hooked)

	a.pong() // too late
	a.alive()

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = b.Request(ctx, "web-1", ping())
	require.ErrorIs(t, err, hub.ErrPromiseTimeout)
	settled(t, reg, 0, 2, 0)
}

func TestRequestIsCancelled(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := start(t, counted(reg))
	a := b.connect(b.join("web-1"))
	ctx, cancel := context.WithCancelCause(t.Context())
	done := b.ask(ctx, "web-1")
	require.NotNil(t, a.receive().GetRequest())
	stopped := errors.New("someone pressed abort")
	cancel(stopped)
	require.ErrorIs(t, outcomeOf(t, done), stopped)
	settled(t, reg, 0, 0, 1)
	_, err := b.Request(ctx, "web-1", ping())
	require.ErrorIs(t, err, stopped)
	settled(t, reg, 0, 0, 1)
}

func TestRequestWhoseSessionIsLost(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := start(t, counted(reg))
	_, err := b.Request(t.Context(), "web-1", ping())
	require.ErrorIs(t, err, hub.ErrNotConnected)

	who := b.join("web-1")
	a := b.connect(who)
	done := b.ask(t.Context(), "web-1")
	require.NotNil(t, a.receive().GetRequest())
	require.NoError(t, a.conn.CloseWithError(99, ""))
	require.ErrorIs(t, outcomeOf(t, done), hub.ErrSessionLost)

	a = b.connect(who)
	done = b.ask(t.Context(), "web-1")
	require.NotNil(t, a.receive().GetRequest())
	b.connect(who)
	err = outcomeOf(t, done)
	require.ErrorIs(t, err, hub.ErrSessionLost)
	require.ErrorIs(t, err, hub.ErrTakenOver)
	settled(t, reg, 0, 0, 2)
}

func TestTooManyPromises(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := start(t, counted(reg), func(c *hub.Config) { c.MaxPromises = 2 })
	a := b.connect(b.join("web-1"))
	first, second := b.ask(t.Context(), "web-1"), b.ask(t.Context(), "web-1")
	one, two := a.receive().GetRequest(), a.receive().GetRequest()
	_, err := b.Request(t.Context(), "web-1", ping())
	require.ErrorIs(t, err, hub.ErrTooManyPromises)
	a.answer(one.Id)
	a.answer(two.Id)
	require.NoError(t, outcomeOf(t, first))
	require.NoError(t, outcomeOf(t, second))
	third := b.ask(t.Context(), "web-1")
	a.pong()
	require.NoError(t, outcomeOf(t, third))
	settled(t, reg, 3, 0, 0)
}

// Many requests at a time are warned of: when their number comes to the threshold, and again only after it was well below.
func TestManyPromisesAreWarnedOf(t *testing.T) {
	var log logText
	b := start(t, func(c *hub.Config) {
		c.MaxPromises, c.PromiseWarnThreshold, c.Logger = 10, 4, slog.New(slog.NewTextHandler(&log, nil))
	})
	a := b.connect(b.join("web-1"))
	var asked []<-chan error
	var ids []uint64
	ask := func(many int) {
		for range many {
			asked = append(asked, b.ask(t.Context(), "web-1"))
			ids = append(ids, a.receive().GetRequest().GetId())
		}
	}
	answer := func(many int) {
		for range many {
			a.answer(ids[0])
			require.NoError(t, outcomeOf(t, asked[0]))
			asked, ids = asked[1:], ids[1:]
		}
	}
	const warning = `msg="many requests await an answer" promises=4 max=10`
	ask(3)
	require.NotContains(t, log.String(), "many requests")
	ask(1)
	require.Contains(t, log.String(), warning)
	ask(6)
	answer(7)
	ask(7) // it was at 3, which is a little below alone
	require.Equal(t, 1, strings.Count(log.String(), "many requests"))
	answer(10)
	ask(3)
	require.Equal(t, 1, strings.Count(log.String(), "many requests"))
	ask(2)
	require.Equal(t, 2, strings.Count(log.String(), warning))
	answer(5)
}

// logText is what a hub logs.
type logText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// An agent that does not read makes requests fail at once instead of piling them up, and does not hold up another one.
func TestAgentThatDoesNotRead(t *testing.T) {
	b := start(t)
	b.connect(b.join("deaf"))
	fine := b.connect(b.join("fine"))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	big := &quicflowv1.Request{Body: &quicflowv1.Request_Message{Message: &quicflowv1.Message{Payload: make([]byte, 900<<10)}}}
	busy := make(chan struct{})
	once := sync.OnceFunc(func() { close(busy) })
	for range 20 {
		wg.Go(func() {
			if _, err := b.Request(ctx, "deaf", big); errors.Is(err, hub.ErrBusy) {
				once()
			}
		})
	}
	signal(t, "requests to the deaf agent fail", busy)
	done := b.ask(t.Context(), "fine")
	fine.pong()
	require.NoError(t, outcomeOf(t, done))

	tooBig := &quicflowv1.Request{Body: &quicflowv1.Request_Message{Message: &quicflowv1.Message{Payload: make([]byte, 2<<20)}}}
	_, err := b.Request(t.Context(), "fine", tooBig)
	require.ErrorContains(t, err, "frame too large")
	fine.alive()
}
