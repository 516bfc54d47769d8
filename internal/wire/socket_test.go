//go:build linux

package wire

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/ipv4"
)

// A socket is behind while more waits in its buffer than a quarter, and no longer than that.
func TestSocketBehind(t *testing.T) {
	to, from := listen(t), listen(t)
	s := SocketOf(to, 64<<10)
	batch := make([]ipv4.Message, 8)
	for i := range batch {
		batch[i].Buffers = [][]byte{make([]byte, 2000)}
	}
	read := func() (n int) {
		require.NoError(t, to.SetReadDeadline(time.Now().Add(10*time.Second)))
		n, err := s.ReadBatch(batch, 0)
		require.NoError(t, err)
		return n
	}
	send := func(many int) {
		for range many {
			_, err := from.WriteTo(make([]byte, 1200), to.LocalAddr())
			require.NoError(t, err)
		}
	}
	send(1)
	require.Equal(t, 1, read())
	require.False(t, s.Behind())

	send(60) // more than there is room for: the rest is dropped
	got := read() + read()
	require.Greater(t, got, 1)
	require.True(t, s.Behind(), "most of the buffer was taken when it was read the second time")
	for s.Behind() {
		got += read()
		require.Less(t, got, 60)
	}
}
