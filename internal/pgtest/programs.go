package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const installTimeout = 5 * time.Minute

// programs gives the directory of initdb and postgres.
func programs(ctx context.Context) (string, error) {
	if dir, ok := findPrograms(); ok {
		return dir, nil
	}
	if os.Geteuid() != 0 {
		return "", errors.New("PostgreSQL's programs (initdb, postgres) are neither in PATH nor in /usr/lib/postgresql; install Debian's package postgresql")
	}
	if err := install(ctx); err != nil {
		return "", fmt.Errorf("install PostgreSQL: %w", err)
	}
	if dir, ok := findPrograms(); ok {
		return dir, nil
	}
	return "", errors.New("PostgreSQL was installed, but its programs are not in /usr/lib/postgresql")
}

func findPrograms() (string, bool) {
	// Debian keeps all versions out of PATH; the newest is the last.
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is valid
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil { // initdb wants the others beside it
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if isFile(filepath.Join(dirs[i], "initdb")) && isFile(filepath.Join(dirs[i], "postgres")) {
			return dirs[i], true
		}
	}
	return "", false
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// install installs Debian's package. Several test binaries may want to at once, so one waits for the other.
func install(ctx context.Context) (err error) {
	guard, err := os.OpenFile(filepath.Join(os.TempDir(), "pgtest-install.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, guard.Close()) }()
	if err := syscall.Flock(int(guard.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	if _, ok := findPrograms(); ok {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, installTimeout, errors.New("apt-get takes too long"))
	defer cancel()
	for _, args := range [][]string{{"update"}, {"install", "--yes", "--no-install-recommends", "postgresql"}} {
		command := exec.CommandContext(ctx, "apt-get", append([]string{"-o", "DPkg::Lock::Timeout=60"}, args...)...)
		command.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1") // RUNLEVEL=1: start no server
		if output, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, output)
		}
	}
	return nil
}

// unprivileged gives the user that PostgreSQL runs as if we are root, else nil, which is ourselves.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read the id of user %s: %w", name, err)
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read the group of user %s: %w", name, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
}
