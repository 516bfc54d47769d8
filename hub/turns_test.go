package hub

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"
)

// takeTurns takes up to n turns: those that it gets without waiting.
func takeTurns(t *testing.T, turns *turns, n int) (got []Turn) {
	t.Helper()
	for range n {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errNoRoom)
		turn, err := turns.await(ctx, t.Context())
		if err != nil {
			require.ErrorIs(t, err, errNoRoom)
			break
		}
		got = append(got, turn)
	}
	return got
}

var errNoRoom = errors.New("no room")

// answers has n answers come, held up by a queue for so long.
func answers(turns *turns, n int, queued time.Duration) {
	for range n {
		turns.observe(quic.ConnectionStats{MinRTT: 100 * time.Millisecond, LatestRTT: 100*time.Millisecond + queued}, false)
	}
}

func TestTurnsAreTakenInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns()
		turns.room = 1
		first, err := turns.await(t.Context(), t.Context())
		require.NoError(t, err)
		order := make(chan int, 3)
		for i := range 3 {
			go func() {
				turn, err := turns.await(t.Context(), t.Context())
				if err == nil {
					order <- i
					turn.Done()
				}
			}()
			synctest.Wait()
		}
		require.Empty(t, order)
		first.Done()
		for i := range 3 {
			require.Equal(t, i, <-order)
		}
		synctest.Wait() // for the last of them to be done
		require.Zero(t, turns.taken)
		Turn{}.Done()
	})
}

// Who gives up waiting takes nobody's turn, not even where it comes at that moment.
func TestTurnThatIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns()
		turns.room = 1
		first, err := turns.await(t.Context(), t.Context())
		require.NoError(t, err)

		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, err = turns.await(ctx, t.Context())
		require.ErrorIs(t, err, ErrPromiseTimeout)
		open, closing := context.WithCancel(t.Context())
		closing()
		_, err = turns.await(t.Context(), open)
		require.ErrorIs(t, err, ErrDraining)
		require.Zero(t, turns.queue.Len())

		first.Done()
		require.Zero(t, turns.taken)
		require.Len(t, takeTurns(t, turns, 2), 1)
	})
}

// A request is on its way for turnAge at most: an agent that takes an hour for its answer holds nobody up.
func TestTurnsOfSlowAgentsComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns()
		turns.room = blindTurns
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go turns.run(ctx)
		slow := takeTurns(t, turns, blindTurns+1)
		require.Len(t, slow, blindTurns)

		asked := time.Now()
		turn, err := turns.await(t.Context(), t.Context())
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(asked), turnAge+2*turnAge/turnParts)
		require.GreaterOrEqual(t, time.Since(asked), turnAge-turnAge/turnParts)
		for _, s := range slow { // their answers change nothing any more
			s.Done()
		}
		require.Equal(t, 1, turns.taken)
		turn.Done()
		require.Zero(t, turns.taken)
	})
}

func TestTurnsFollowTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns()
		round := func(queued time.Duration, n int) int {
			taken := takeTurns(t, turns, maxTurns+1) // someone has to wait
			answers(turns, n, queued)
			<-time.After(turnRound)
			for _, turn := range taken {
				turn.Done()
			}
			return turns.room
		}
		require.Greater(t, round(0, turnSamples), firstTurns, "no queue: more")
		for range 100 {
			round(turnDelay, turnSamples)
		}
		require.Equal(t, maxTurns, turns.room, "never more than that")
		before := turns.room
		require.Less(t, round(turnDelay+1, turnSamples), before, "a queue: fewer")
		for range 100 {
			round(time.Second, turnSamples)
		}
		require.Equal(t, minTurns, turns.room, "never fewer than that")
		require.Equal(t, minTurns, round(time.Second, turnSamples-1), "too few samples say nothing")
		answers(turns, turnSamples, 0)
		require.Greater(t, round(0, 0), minTurns, "one agent's delay is its own")

		for range 100 {
			round(0, 0)
		}
		require.Equal(t, blindTurns, turns.room, "as long as no answer tells anything")
	})
}

// Where nobody has to wait, more room would say nothing of what the hub carries.
func TestTurnsGrowOnlyWhenTheyAreScarce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns()
		for range 10 {
			for _, turn := range takeTurns(t, turns, firstTurns/2) {
				turn.Done()
			}
			answers(turns, turnSamples, 0)
			<-time.After(turnRound)
		}
		require.Equal(t, firstTurns, turns.room)
	})
}

// After all have come back at once, the handshakes stood in a queue: that the first answers take no longer does not say that there is none.
func TestTurnsDoNotTrustTheHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns()
		round := func(s quic.ConnectionStats) int {
			taken := takeTurns(t, turns, maxTurns+1)
			for range turnSamples {
				turns.observe(s, true)
			}
			<-time.After(turnRound)
			for _, turn := range taken {
				turn.Done()
			}
			return turns.room
		}
		require.Equal(t, firstTurns, round(quic.ConnectionStats{MinRTT: 80 * time.Millisecond, LatestRTT: 80 * time.Millisecond}))
		require.Greater(t, round(quic.ConnectionStats{MinRTT: turnDelay, LatestRTT: turnDelay}), firstTurns, "too short for a queue")
		before := turns.room
		require.Less(t, round(quic.ConnectionStats{MinRTT: 80 * time.Millisecond, LatestRTT: 81*time.Millisecond + turnDelay}), before)
	})
}
