package agent

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

func TestBackoff(t *testing.T) {
	b := newBackoff(Backoff{Min: time.Second, Max: time.Minute})
	for range 2 {
		require.LessOrEqual(t, b.next(), time.Second)
		for _, most := range []time.Duration{2, 4, 8, 16, 32, 60, 60} {
			wait := b.next()
			require.GreaterOrEqual(t, wait, most*time.Second/2)
			require.LessOrEqual(t, wait, most*time.Second)
		}
		b.reset()
	}
	for range 1000 {
		require.LessOrEqual(t, b.next(), time.Minute)
	}
	b.reset()
	wait := b.after(&refusedError{retryAfter: time.Hour})
	require.GreaterOrEqual(t, wait, time.Hour, "the hub's word counts")
	require.LessOrEqual(t, wait, time.Hour*5/4)
	require.LessOrEqual(t, b.after(errors.New("x")), 2*time.Second)
}

// All agents of a hub lose it at the same moment; how they come back, first and later, must be spread evenly.
func TestReturnIsSpread(t *testing.T) {
	const agents, parts = 10_000, 10
	busy := &quic.TransportError{Remote: true, ErrorCode: quic.ConnectionRefused}
	for name, c := range map[string]struct {
		earlier     []error // attempts before
		err         error
		least, most time.Duration
	}{
		"first return":        {nil, errors.New("lost"), 0, time.Second},
		"second attempt":      {[]error{errors.New("lost")}, errors.New("no route"), time.Second, 2 * time.Second},
		"busy hub":            {[]error{errors.New("lost")}, busy, 500 * time.Millisecond, time.Second},
		"busy for long":       {[]error{busy, busy, busy, busy, busy, busy}, busy, maxBusyWait / 2, maxBusyWait},
		"told when to return": {nil, &refusedError{retryAfter: 8 * time.Second, busy: true}, 8 * time.Second, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			var counts [parts]int
			for range agents {
				b := newBackoff(Backoff{Min: time.Second, Max: time.Minute})
				for _, err := range c.earlier {
					b.after(err)
				}
				wait := b.after(c.err)
				require.GreaterOrEqual(t, wait, c.least)
				require.LessOrEqual(t, wait, c.most)
				counts[min(parts-1, int((wait-c.least)*parts/(c.most-c.least)))]++
			}
			for part, n := range counts {
				require.InDelta(t, agents/parts, n, agents/parts/4, "part %d of %v", part, counts)
			}
		})
	}
}

// A hub that answers that it is busy is alive: the wait stays short however often it says so, and what is counted as a failure
// before it does not make it longer.
func TestBusyHubIsComeBackToSoon(t *testing.T) {
	for name, err := range map[string]error{
		"connection refused": fmt.Errorf("dial: %w", &quic.TransportError{Remote: true, ErrorCode: quic.ConnectionRefused}),
		"close code":         fmt.Errorf("wait for welcome: %w", &quic.ApplicationError{Remote: true, ErrorCode: wire.CloseOverloaded}),
		"refusal":            refused(&quicflowv1.Refusal{Code: quicflowv1.RefusalCode_REFUSAL_CODE_OVERLOADED, RetryAfterMs: 1000}),
	} {
		b := newBackoff(Backoff{Min: time.Second, Max: time.Minute})
		for range 10 {
			b.next()
		}
		for range 100 {
			require.LessOrEqual(t, b.after(err), maxBusyWait, name)
		}
		require.Equal(t, 110, b.attempts, "they count for the limit of attempts")
		require.LessOrEqual(t, b.next(), time.Second, "growth starts over: the hub was there")
	}
	for name, err := range map[string]error{
		"own":          &quic.TransportError{ErrorCode: quic.ConnectionRefused},
		"another code": &quic.TransportError{Remote: true, ErrorCode: quic.InternalError},
		"full":         refused(&quicflowv1.Refusal{Code: quicflowv1.RefusalCode_REFUSAL_CODE_FULL}),
		"draining":     &quic.ApplicationError{Remote: true, ErrorCode: wire.CloseDraining},
	} {
		require.False(t, isBusy(err), name)
	}
	b := newBackoff(Backoff{Min: 10 * time.Millisecond, Max: 50 * time.Millisecond})
	for range 20 {
		require.LessOrEqual(t, b.after(&quic.TransportError{Remote: true, ErrorCode: quic.ConnectionRefused}), 50*time.Millisecond, "Max bounds it too")
	}
}
