package agent

import (
	"errors"
	"math/rand/v2"
	"time"
)

type backoff struct {
	cfg      Backoff
	attempts int // since the last reset
}

func newBackoff(cfg Backoff) *backoff { return &backoff{cfg: cfg} }

func (b *backoff) reset() { b.attempts = 0 }

// next gives the time to wait before the next attempt.
func (b *backoff) next() time.Duration {
	b.attempts++
	return b.cfg.Wait(b.attempts - 1)
}

// Wait gives the time to wait after so many failed attempts before the last one.
func (b Backoff) Wait(attempts int) time.Duration {
	d := b.Max
	if attempts < 30 {
		d = min(d, b.Min<<attempts)
	}
	return d/2 + rand.N(d/2+1)
}

// after gives the time to wait after an error, which is longer where the hub asked for that.
func (b *backoff) after(err error) time.Duration {
	wait := b.next()
	var refused *refusedError
	if errors.As(err, &refused) {
		wait = max(wait, refused.retryAfter)
	}
	return wait
}
