package git

import (
	"io/fs"
	"os"
	"syscall"

	"github.com/quicflow/quicflow/agent/executor/wrapper"
)

// ownedBy says whether a file belongs to an owner; nil is the agent's own user.
func ownedBy(info fs.FileInfo, o *wrapper.Account) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return true
	}
	uid := os.Geteuid()
	if o != nil {
		uid = int(o.UID)
	}
	return int(stat.Uid) == uid
}
