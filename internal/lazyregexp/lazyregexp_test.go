package lazyregexp_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/lazyregexp"
)

func TestRegexp(t *testing.T) {
	r := lazyregexp.New(`^(a+)(b?)$`)
	require.Equal(t, `^(a+)(b?)$`, r.String())
	require.True(t, r.MatchString("aab"))
	require.False(t, r.MatchString("ba"))
	require.Equal(t, []string{"aab", "aa", "b"}, r.FindStringSubmatch("aab"))
	require.Panics(t, func() { lazyregexp.New(`(`) })
}
