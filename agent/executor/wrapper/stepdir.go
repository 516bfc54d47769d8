package wrapper

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/quicflow/quicflow/internal/durable"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// stepDir is where agent and wrapper meet: the directory of one step.
type stepDir string

// The files of a step's directory, beside executor's secrets.
const (
	planFile     = "plan.json"   // written by the agent before there is a wrapper
	lockFile     = "lock"        // locked by the wrapper as long as it lives
	pidFile      = "wrapper.pid" // and the start time: the wrapper listens to SIGTERM from now on
	fetchingFile = "fetching"    // made once, before the first artifact is fetched: since when
	startedFile  = "started"     // made once, before Work is called for the first time: since when
	spentFile    = "spent"       // of the step's time, when its health check began
	resultFile   = "result"      // a StepResult
	cancelFile   = "cancel"      // the reason
	outputFile   = "wrapper.log" // what the wrapper itself had to say
	spoolFile    = "spool"
	groupPrefix  = "group-" // and a process id: a process group that runs, and the start time of its leader
	scriptBegan  = ".began" // of a script, made once before it begins: whoever makes it runs it
	scriptEnded  = ".ended" // of a script: how it ended, as JSON
	keptPrefix   = "kept-"  // and the name of a value that Work kept
	exclusive    = os.O_WRONLY | os.O_CREATE | os.O_EXCL
)

func (d stepDir) artifact(sha256 string) string { return d.path("artifact-" + sha256) }

func (d stepDir) path(name string) string { return filepath.Join(string(d), name) }

func (d stepDir) has(name string) bool {
	_, err := os.Stat(d.path(name))
	return err == nil
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

// mark makes a file durably, and reports whether it was the first to do so.
func (d stepDir) mark(name, text string) (bool, error) {
	file, err := os.OpenFile(d.path(name), exclusive, 0o600)
	if errors.Is(err, os.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, err = file.WriteString(text)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return false, err
	}
	return true, durable.SyncDir(string(d))
}

func nowText() string { return strconv.FormatInt(time.Now().UnixMilli(), 10) }

// timeIn reads what nowText wrote. It is now if there is nothing to read.
func (d stepDir) timeIn(name string) time.Time {
	text, _ := os.ReadFile(d.path(name))
	ms, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return time.Now()
	}
	return time.UnixMilli(ms)
}

// startedAt is 0 for a step that has not begun.
func (d stepDir) startedAt() int64 {
	switch {
	case d.has(fetchingFile):
		return d.timeIn(fetchingFile).UnixMilli()
	case d.has(startedFile):
		return d.timeIn(startedFile).UnixMilli()
	}
	return 0
}

func (d stepDir) writeResult(name string, result *quicflowv1.StepResult) error {
	value, err := proto.Marshal(result)
	if err != nil {
		return err
	}
	return durable.WriteFile(d.path(name), value, 0o600)
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
	pid := os.Getpid()
	if err := os.WriteFile(part, []byte(strconv.Itoa(pid)+" "+processStart(pid)), 0o600); err != nil {
		return err
	}
	return os.Rename(part, d.path(pidFile))
}

// requestCancel tells the wrapper, if there is one. The note is written before the process id is looked for, and the wrapper looks
// for the note after it has written that: one of the two sees the other's. The start time tells a wrapper from another process that
// got the id of a dead one.
func (d stepDir) requestCancel(reason string) error {
	if err := durable.WriteFile(d.path(cancelFile), []byte(reason), 0o600); err != nil {
		return err
	}
	text, err := os.ReadFile(d.path(pidFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	id, start, _ := strings.Cut(string(text), " ")
	pid, err := strconv.Atoi(id)
	if err != nil || pid <= 1 {
		return fmt.Errorf("%s holds no process id", d.path(pidFile))
	}
	if processStart(pid) != start {
		return nil
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

func (d stepDir) groupFile(pid int) string { return d.path(groupPrefix + strconv.Itoa(pid)) }

func (d stepDir) writeGroup(pid int) error {
	return os.WriteFile(d.groupFile(pid), []byte(processStart(pid)), 0o600)
}

// killLeftovers kills the scripts and programs that a dead wrapper left behind. The start time tells one from another process that
// got the same id later.
func (d stepDir) killLeftovers() {
	files, _ := filepath.Glob(d.path(groupPrefix + "*"))
	for _, file := range files {
		start, err := os.ReadFile(file)
		pid, wrong := strconv.Atoi(strings.TrimPrefix(filepath.Base(file), groupPrefix))
		if err == nil && wrong == nil && pid > 1 && len(start) > 0 && processStart(pid) == string(start) {
			_ = syscall.Kill(-pid, syscall.SIGKILL)
		}
		_ = os.Remove(file)
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
