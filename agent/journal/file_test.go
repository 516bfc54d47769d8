package journal

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCopyOfAFile(t *testing.T) {
	file := fileID{Inode: 1, Made: "5.000000001"}
	for _, c := range []struct {
		known  fileID
		copied bool
	}{
		{file, false},
		{fileID{Inode: 1, Made: "5.000000002"}, true},
		{fileID{Inode: 2, Made: "5.000000001"}, false}, // a file system may count anew
		{fileID{Inode: 1}, false},                      // it has learnt to tell the moment
		{fileID{Inode: 2}, true},
	} {
		require.Equal(t, c.copied, file.isCopyOf(c.known), "%+v", c.known)
		text, err := c.known.encode()
		require.NoError(t, err)
		decoded, ok := decodeFileID(text)
		require.True(t, ok)
		require.Equal(t, c.known, decoded)
	}
	_, ok := decodeFileID(nil)
	require.False(t, ok)
}
