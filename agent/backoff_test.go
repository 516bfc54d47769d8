package agent

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBackoff(t *testing.T) {
	b := newBackoff(Backoff{Min: time.Second, Max: time.Minute})
	for range 2 {
		for _, most := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
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
	require.Equal(t, time.Hour, b.after(&refusedError{retryAfter: time.Hour}))
	require.LessOrEqual(t, b.after(errors.New("x")), 2*time.Second)
}
