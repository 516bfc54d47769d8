package script

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/quicflow/quicflow/internal/pki"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// stepDir is where agent and wrapper meet: the directory of one step.
type stepDir string

// The files of a step's directory.
const (
	planFile        = "plan.json"    // written by the agent before there is a wrapper
	lockFile        = "lock"         // locked by the wrapper as long as it lives
	pidFile         = "wrapper.pid"  // the wrapper listens to SIGTERM from now on
	startedFile     = "started"      // made once, before the first script: whoever makes it runs the scripts
	groupFile       = "group"        // the process group of the script that runs, and the start time of its leader
	scriptsDoneFile = "scripts-done" // all scripts succeeded; a StepResult without an outcome
	resultFile      = "result"       // a StepResult
	cancelFile      = "cancel"       // the reason
	outputFile      = "wrapper.log"  // what the wrapper itself had to say
	spoolFile       = "spool"
)

func (d stepDir) path(name string) string { return filepath.Join(string(d), name) }

func (d stepDir) has(name string) bool {
	_, err := os.Stat(d.path(name))
	return err == nil
}

func (d stepDir) create(p *plan) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return err
	}
	if err := pki.WriteFile(d.path(planFile), text, 0o600); err != nil {
		return err
	}
	// If the directory got lost in a power cut, so would the gate within it.
	return syncDir(filepath.Dir(string(d)))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (d stepDir) readPlan() (*plan, error) {
	text, err := os.ReadFile(d.path(planFile))
	if err != nil {
		return nil, err
	}
	p := new(plan)
	return p, json.Unmarshal(text, p)
}

// dirLock is the wrapper's lock. It goes with its holder, or by release.
type dirLock struct{ file *os.File }

// release unlocks before it closes: a process that is being forked at this moment has the file open too.
func (l *dirLock) release() {
	_ = syscall.Flock(int(l.file.Fd()), syscall.LOCK_UN)
	_ = l.file.Close()
}

// tryLock takes the wrapper's lock, or gives nil if it is taken.
func (d stepDir) tryLock() (*dirLock, error) {
	file, err := os.OpenFile(d.path(lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return &dirLock{file}, nil
	}
	_ = file.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, nil
	}
	return nil, fmt.Errorf("lock %s: %w", d.path(lockFile), err)
}

// start passes the gate of the step, durably, and reports whether it was the first to do so.
func (d stepDir) start() (bool, error) {
	file, err := os.OpenFile(d.path(startedFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, err = fmt.Fprintln(file, time.Now().UnixMilli())
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return false, err
	}
	return true, syncDir(string(d))
}

func (d stepDir) startedAt() int64 {
	text, _ := os.ReadFile(d.path(startedFile))
	ms, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return ms
}

func (d stepDir) writeResult(name string, result *quicflowv1.StepResult) error {
	value, err := proto.Marshal(result)
	if err != nil {
		return err
	}
	return pki.WriteFile(d.path(name), value, 0o600)
}

func (d stepDir) readResult(name string) (*quicflowv1.StepResult, error) {
	value, err := os.ReadFile(d.path(name))
	if err != nil {
		return nil, err
	}
	result := new(quicflowv1.StepResult)
	return result, proto.Unmarshal(value, result)
}

// writePID writes the file as a whole, but not durably: it means nothing after a power cut.
func (d stepDir) writePID() error {
	part := d.path(pidFile + "~")
	if err := os.WriteFile(part, []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return err
	}
	return os.Rename(part, d.path(pidFile))
}

// requestCancel is for the moment when a wrapper holds the lock. The note is written before the process id is looked
// for, and the wrapper looks for the note after it has written that: one of the two sees the other's.
func (d stepDir) requestCancel(reason string) error {
	if err := pki.WriteFile(d.path(cancelFile), []byte(reason), 0o600); err != nil {
		return err
	}
	text, err := os.ReadFile(d.path(pidFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil || pid <= 1 {
		return fmt.Errorf("%s holds no process id", d.path(pidFile))
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// cancelRequested gives the reason, and whether there was a request.
func (d stepDir) cancelRequested() (string, bool) {
	reason, err := os.ReadFile(d.path(cancelFile))
	return string(reason), err == nil
}

func (d stepDir) writeGroup(pid int) error {
	return os.WriteFile(d.path(groupFile), fmt.Appendf(nil, "%d %s", pid, processStart(pid)), 0o600)
}

// killLeftovers kills the script that a dead wrapper left behind. The start time tells it from another process that got
// the same id later.
func (d stepDir) killLeftovers() {
	text, err := os.ReadFile(d.path(groupFile))
	if err != nil {
		return
	}
	id, start, _ := strings.Cut(string(text), " ")
	if pid, err := strconv.Atoi(id); err == nil && pid > 1 && start != "" && processStart(pid) == start {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
}

// wrapperOutput is the last line of what a wrapper said about its own failure.
func (d stepDir) wrapperOutput() string {
	text, _ := os.ReadFile(d.path(outputFile))
	if line := lastLine(text); line != "" {
		return line
	}
	return "it said nothing"
}

// lastLine gives the last line that is not blank.
func lastLine(text []byte) string {
	text = bytes.TrimSpace(text)
	return strings.TrimSpace(strings.ToValidUTF8(string(text[bytes.LastIndexByte(text, '\n')+1:]), "�"))
}
