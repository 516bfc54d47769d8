package journal

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// identify reports false where nothing is known of the file.
func identify(path string) (fileID, bool) {
	var s unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_INO|unix.STATX_BTIME, &s); err != nil || s.Ino == 0 {
		return fileID{}, false
	}
	f := fileID{Inode: s.Ino}
	if s.Mask&unix.STATX_BTIME != 0 {
		f.Made = fmt.Sprintf("%d.%09d", s.Btime.Sec, s.Btime.Nsec)
	}
	return f, true
}
