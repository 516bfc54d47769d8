package git

import (
	"io/fs"
	"os"
	"syscall"
)

// ownedBy says whether a file belongs to an owner; nil is the agent's own user.
func ownedBy(info fs.FileInfo, o *owner) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return true
	}
	uid := os.Geteuid()
	if o != nil {
		uid = o.uid
	}
	return int(stat.Uid) == uid
}
