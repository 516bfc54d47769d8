//go:build linux || darwin

package artifacts

import "syscall"

// freeBytes is what is left for us on the disk of a directory; -1 if that is not known.
func freeBytes(dir string) int64 {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return -1
	}
	return int64(fs.Bavail) * int64(fs.Bsize) //nolint:unconvert // its type is not the same on every system
}
