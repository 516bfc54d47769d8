package agent

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicflow/quicflow/internal/wire"
)

// maxBusyWait bounds the wait for a hub that is alive but has too much to do: it will have time soon.
const maxBusyWait = 5 * time.Second

type backoff struct {
	cfg      Backoff
	attempts int // since the last reset
	failures int // of them in a row without a busy hub in between
	busy     int // in a row that found a busy hub
}

func newBackoff(cfg Backoff) *backoff { return &backoff{cfg: cfg} }

func (b *backoff) reset() { b.attempts, b.failures, b.busy = 0, 0, 0 }

// next gives the time to wait before the next attempt.
func (b *backoff) next() time.Duration { return b.after(nil) }

// Wait gives the time to wait after so many failed attempts before the last one.
func (b Backoff) Wait(attempts int) time.Duration { return b.jittered(attempts, b.Max) }

// after gives the time to wait after an error, which is longer where the hub asked for that.
//
// The first wait is anything up to Min: all agents of a hub lose it at the same moment, and shall not come back at one.
func (b *backoff) after(err error) time.Duration {
	first := b.attempts == 0
	b.attempts++
	var wait time.Duration
	switch {
	case isBusy(err):
		wait = b.cfg.jittered(b.busy, min(b.cfg.Max, max(maxBusyWait, b.cfg.Min)))
		b.busy++
		b.failures = 0
	case first:
		wait = rand.N(b.cfg.Min + 1)
		b.failures++
	default:
		wait = b.cfg.jittered(b.failures, b.cfg.Max)
		b.failures++
		b.busy = 0
	}
	var refused *refusedError
	if errors.As(err, &refused) && refused.retryAfter > 0 {
		wait = max(wait, refused.retryAfter+rand.N(refused.retryAfter/4+1))
	}
	return wait
}

// jittered gives a random part between half and all of a time that doubles from Min to most.
func (b Backoff) jittered(doublings int, most time.Duration) time.Duration {
	d := most
	if doublings < 30 {
		d = min(d, b.Min<<doublings)
	}
	return d/2 + rand.N(d/2+1)
}

// isBusy says whether a hub answered that too many come at this moment.
func isBusy(err error) bool {
	if refused := (*refusedError)(nil); errors.As(err, &refused) {
		return refused.busy
	}
	if closed := (*quic.ApplicationError)(nil); errors.As(err, &closed) {
		return closed.Remote && closed.ErrorCode == wire.CloseOverloaded
	}
	closed := (*quic.TransportError)(nil)
	return errors.As(err, &closed) && closed.Remote && closed.ErrorCode == quic.ConnectionRefused
}
