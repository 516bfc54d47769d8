package journal

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// fileIdentity tells a file from a copy of it: where the file system knows it, by the moment at which it was made. Empty if
// nothing is known.
func fileIdentity(path string) string {
	var s unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_INO|unix.STATX_BTIME, &s); err != nil {
		return ""
	}
	if s.Mask&unix.STATX_BTIME != 0 {
		return fmt.Sprintf("made %d.%09d", s.Btime.Sec, s.Btime.Nsec)
	}
	return fmt.Sprintf("inode %d", s.Ino)
}
