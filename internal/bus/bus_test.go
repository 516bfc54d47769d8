package bus

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNotifyWakesAtOnceThenCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Coalesce: 50 * time.Millisecond})
		changed, cancel := b.Subscribe(Task("a"))
		defer cancel()

		start := time.Now()
		b.Notify(Task("a"))
		<-changed
		require.Zero(t, time.Since(start))

		for range 1000 {
			b.Notify(Task("a"))
		}
		require.Empty(t, changed)
		<-changed
		require.Equal(t, 50*time.Millisecond, time.Since(start))

		time.Sleep(time.Second) // virtual
		require.Empty(t, changed)
	})
}

func TestNotifyNeverBlocksOnASlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{})
		slow, cancel := b.Subscribe("x")
		defer cancel()
		for range 10 {
			b.Notify("x")
			time.Sleep(time.Second) // virtual
		}
		<-slow
		require.Empty(t, slow)
	})
}

func TestTopicsAndSubscribersAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{})
		a1, cancelA1 := b.Subscribe("a")
		a2, cancelA2 := b.Subscribe("a")
		other, cancelOther := b.Subscribe("b")
		b.Notify("a")
		require.Len(t, a1, 1)
		require.Len(t, a2, 1)
		require.Empty(t, other)

		<-a1
		b.Notify("a") // waits for the interval
		cancelA1()
		cancelA1()
		cancelA2()
		cancelOther()
		synctest.Wait()
		time.Sleep(time.Second) // virtual
		require.Empty(t, a1)
		require.Empty(t, b.topics)
	})
}

func TestBusIsRaceFree(t *testing.T) {
	b := New(Config{Coalesce: time.Microsecond})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				changed, cancel := b.Subscribe("x")
				b.Notify("x")
				<-changed // by ours, or by another's that came in between
				cancel()
			}
		})
	}
	wg.Wait()
	require.Empty(t, b.topics)
}
