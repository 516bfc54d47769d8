package bus

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWatchCollectsWhatChanged(t *testing.T) {
	b := New(Config{})
	b.Notify("before")
	w := b.Watch()
	other := b.Watch()
	defer other.Close()
	for range 3 {
		b.Notify(Tasks)
		b.Notify(Task("a"))
	}
	<-w.Changed()
	topics, more := w.Take()
	slices.Sort(topics)
	require.Equal(t, []string{"task/a", "tasks"}, topics)
	require.False(t, more)
	topics, _ = w.Take()
	require.Empty(t, topics)

	for i := range 2 * maxWatched {
		b.Notify(fmt.Sprint(i))
	}
	topics, more = w.Take()
	require.Len(t, topics, maxWatched)
	require.True(t, more)
	_, more = w.Take()
	require.False(t, more)

	w.Close()
	w.Close()
	b.Notify("after")
	topics, _ = w.Take()
	require.Empty(t, topics)
	topics, _ = other.Take()
	require.Len(t, topics, maxWatched) // it was not closed with the first
}
