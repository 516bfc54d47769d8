package weaknet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/hub"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// work has messages answered and steps run, many at a time, and says how long it took. Nothing may fail.
func (w *world) work(messages, steps, logSize int) {
	t := w.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var group sync.WaitGroup
	errs := make(chan error, messages)
	took := make([]time.Duration, messages)
	begun := time.Now()
	for i := range messages {
		group.Go(func() {
			start := time.Now()
			if err := w.ask(ctx, fmt.Sprintf("message %d", i), 1000); err != nil {
				errs <- fmt.Errorf("message %d: %w", i, err)
			}
			took[i] = time.Since(start)
		})
		if i%10 == 9 { // at most ten at a time
			group.Wait()
		}
	}
	group.Wait()
	answered := time.Since(begun)
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	for i := range messages {
		w.with(func() {
			require.Equal(t, 1, w.handled[fmt.Sprintf("message %d", i)], "how often message %d was handled", i)
		})
	}
	slices.Sort(took)
	t.Logf("FIGURE %d messages of 1 KB, ten at a time: %v in all, median %v, worst %v", messages, answered.Round(time.Millisecond),
		took[messages/2].Round(time.Millisecond), took[messages-1].Round(time.Millisecond))

	begun = time.Now()
	var requests []*quicflowv1.StepRequest
	for range steps {
		step := w.plan(lines(logSize), nil)
		asked, outcomes := w.dispatch(ctx, step)
		require.Equal(t, 1, asked, "%v", outcomes)
		requests = append(requests, step)
	}
	w.settled(requests...)
	spent := time.Since(begun)
	t.Logf("FIGURE %d logs of %d KB: complete in the store after %v, %.0f KB/s", steps, logSize>>10, spent.Round(time.Millisecond),
		float64(steps*logSize>>10)/spent.Seconds())
	t.Logf("FIGURE the network was %s", w.network)
	w.with(func() { require.Len(t, w.sessions, 1, "one session carried it all; the others ended for %v", w.ended) })
}

func TestLossAndDelay(t *testing.T) {
	n := newNetwork(t)
	n.set(weather{loss: 0.05, delay: 100 * time.Millisecond})
	newWorld(t, n).work(100, 2, 300<<10)
}

func TestReordering(t *testing.T) {
	n := newNetwork(t)
	n.set(weather{delay: 10 * time.Millisecond, reorder: 0.01})
	newWorld(t, n).work(300, 4, 400<<10)
}

// The bare network, to compare with.
func TestFairWeather(t *testing.T) { newWorld(t, newNetwork(t)).work(300, 4, 400<<10) }

// A partition: everything asked for before and during it has an outcome, what was lost can be asked for again, and nothing
// is done twice. The session lives through a short one, and a new one follows a long one.
func TestPartition(t *testing.T) {
	for _, c := range []struct {
		length   time.Duration
		survives bool
	}{{3 * time.Second, true}, {60 * time.Second, false}} {
		t.Run(c.length.String(), func(t *testing.T) {
			t.Parallel()
			n := newNetwork(t)
			n.set(weather{delay: 20 * time.Millisecond})
			w := newWorld(t, n)
			ctx, cancel := context.WithTimeout(t.Context(), c.length+patience)
			defer cancel()

			gate := make(chan struct{})
			running := w.plan(lines(300<<10), gate)
			_, outcomes := w.dispatch(ctx, running)
			require.Empty(t, outcomes)
			w.eventually("the first half of the log is on its way", func() bool {
				head, err := w.store.LogHead(ctx, running.TaskId)
				return err == nil && head > 0
			})

			n.set(weather{loss: 1})
			cut := time.Now()
			close(gate) // the step ends, and prints its second half, while no one can hear it
			steps := []*quicflowv1.StepRequest{running}
			const messages = 20
			outcome := make([]error, messages)
			var group sync.WaitGroup
			for i := range messages {
				group.Go(func() { outcome[i] = w.ask(ctx, fmt.Sprintf("message %d", i), 1000) })
			}
			for range 5 {
				step := w.plan(lines(10<<10), nil)
				steps = append(steps, step)
				group.Go(func() {
					asked, outcomes := w.dispatch(ctx, step)
					t.Logf("%s was asked for %d times; the first outcome: %v", step.StepId, asked, slices.Concat(outcomes, []error{nil})[0])
				})
			}
			pause(c.length - time.Since(cut))
			n.set(weather{delay: 20 * time.Millisecond})
			healed := time.Now()
			require.NoError(t, w.answers(ctx, "first after the partition"))
			t.Logf("FIGURE partition of %v: the agent answers %v after it healed", c.length, time.Since(healed).Round(time.Millisecond))
			group.Wait()
			w.settled(steps...)
			t.Logf("FIGURE partition of %v: results and logs are complete %v after it healed", c.length, time.Since(healed).Round(time.Millisecond))

			var answered, lost int
			for i, err := range outcome {
				handled := 0
				w.with(func() { handled = w.handled[fmt.Sprintf("message %d", i)] })
				if err == nil {
					answered++
					require.Equal(t, 1, handled)
					continue
				}
				lost++
				require.True(t, errors.Is(err, hub.ErrSessionLost) || errors.Is(err, hub.ErrPromiseTimeout), "%v", err)
				require.LessOrEqual(t, handled, 1)
			}
			w.with(func() {
				t.Logf("FIGURE partition of %v: %d messages in flight answered, %d reported as lost; %d session(s), ended by %v", c.length, answered, lost, len(w.sessions), w.ended)
				if c.survives {
					require.Equal(t, messages, answered)
					require.Len(t, w.sessions, 1)
				} else {
					require.GreaterOrEqual(t, len(w.sessions), 2)
				}
			})
		})
	}
}

// answers asks until there is an answer.
func (w *world) answers(ctx context.Context, name string) error {
	for i := 0; ; i++ {
		err := w.ask(ctx, fmt.Sprintf("%s, %d", name, i), 10)
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// The agent's address changes in the middle of a command: nothing is lost, nothing is done twice.
func TestAddressChange(t *testing.T) {
	for _, c := range []struct {
		name     string
		change   func(*network)
		quiet    bool // nothing is on its way when it happens
		ownWire  bool
		survives bool // the session, by migration
		within   time.Duration
	}{
		{"another address", func(n *network) { n.move(0) }, false, !hasNetem, true, 5 * time.Second},
		{"another address in a quiet moment", func(n *network) { n.move(0) }, true, !hasNetem, true, 5 * time.Second},
		{"another address after 2 s without", func(n *network) { n.move(2 * time.Second) }, false, !hasNetem, false, 10 * time.Second},
		{"another address after 2 s without, in a quiet moment", func(n *network) { n.move(2 * time.Second) }, true, !hasNetem, false, 10 * time.Second},
		{"another port by a NAT", func(n *network) { n.wire.shift.Store(7) }, false, true, true, 20 * time.Second},
		{"another port by a NAT in a quiet moment", func(n *network) { n.wire.shift.Store(7) }, true, true, true, 20 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := lay(t, 1500, c.ownWire)
			n.set(weather{delay: 20 * time.Millisecond})
			w := newWorld(t, n)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			gate := make(chan struct{})
			step := w.plan(lines(300<<10), gate)
			_, outcomes := w.dispatch(ctx, step)
			require.Empty(t, outcomes)

			if c.quiet {
				w.eventually("the first half of the log is on its way", func() bool {
					head, err := w.store.LogHead(ctx, step.TaskId)
					return err == nil && head > 0
				})
				pause(2 * time.Second)
			}
			changed := time.Now()
			c.change(n)
			back := time.Now()
			require.NoError(t, w.answers(ctx, "first after the change"))
			took := time.Since(back)
			t.Logf("FIGURE %s: the agent answers %v after it has the new address", c.name, took.Round(time.Millisecond))
			require.Less(t, took, c.within)
			_, outcomes = w.dispatch(ctx, step) // it is known already, wherever it is asked from
			require.Empty(t, outcomes)
			close(gate)
			w.settled(step)
			t.Logf("FIGURE %s: result and log are complete %v after the change began", c.name, time.Since(changed).Round(time.Millisecond))
			w.with(func() {
				t.Logf("FIGURE %s: %d session(s), ended by %v", c.name, len(w.sessions), w.ended)
				if c.survives {
					require.Len(t, w.sessions, 1)
				}
				for name, times := range w.handled {
					require.Equal(t, 1, times, name)
				}
			})
		})
	}
}

// A path that takes no IP packet above 1280 bytes, whether the hosts know that or a router in between drops them in silence.
func TestSmallestPath(t *testing.T) {
	for _, c := range []struct {
		name  string
		mtu   int
		paths weather
		own   bool
	}{
		{"devices of 1280 bytes", 1280, weather{delay: 5 * time.Millisecond}, !hasNetem},
		{"a router in between", 1500, weather{delay: 5 * time.Millisecond, mtu: 1280}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := lay(t, c.mtu, c.own)
			n.set(c.paths)
			begun := time.Now()
			w := newWorld(t, n)
			t.Logf("FIGURE %s: joined and connected in %v", c.name, time.Since(begun).Round(time.Millisecond))
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			begun = time.Now()
			for i := range 4 {
				require.NoError(t, w.ask(ctx, fmt.Sprintf("big %d", i), 500_000))
			}
			t.Logf("FIGURE %s: four messages of 500 KB there and back in %v", c.name, time.Since(begun).Round(time.Millisecond))
			step := w.plan(lines(500<<10), nil)
			_, outcomes := w.dispatch(ctx, step)
			require.Empty(t, outcomes)
			w.settled(step)
			w.with(func() { require.Len(t, w.sessions, 1) })
			t.Logf("FIGURE the network was %s", n)
		})
	}
}
