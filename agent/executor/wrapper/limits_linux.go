package wrapper

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/quicflow/quicflow/internal/release"
)

// cgroup is that of a step's scripts.
type cgroup struct {
	path string
	dir  *os.File
}

// cgroupName is the directory of our cgroups.
const cgroupName = "quicflow"

// controllers are those that limits need.
var controllers = []string{"cpu", "memory", "pids"}

// cpuPeriod of a limit of CPUs, in microseconds.
const cpuPeriod = 100_000

// remove removes the cgroup, unless a script left processes in it, which keep their limits.
func (c *cgroup) remove() {
	if c == nil {
		return
	}
	_ = c.dir.Close()
	_ = os.Remove(c.path)
}

// limitedBy makes the step's cgroup with these limits. The error says why that is not possible here.
func (w *wrapper) limitedBy(limits *release.ProcessLimits) (*cgroup, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cgroup != nil {
		return w.cgroup, nil
	}
	base, err := cgroupBase()
	if err != nil {
		return nil, err
	}
	if left, err := os.ReadDir(base); err == nil { // of steps whose scripts left processes, which have ended since
		for _, entry := range left {
			if entry.IsDir() {
				_ = os.Remove(filepath.Join(base, entry.Name()))
			}
		}
	}
	sum := sha256.Sum256([]byte(w.plan.Step.ID))
	c := &cgroup{path: filepath.Join(base, "step-"+hex.EncodeToString(sum[:8]))}
	if err := os.Mkdir(c.path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	settings := map[string]string{}
	if limits.Memory > 0 {
		_ = os.WriteFile(filepath.Join(c.path, "memory.swap.max"), []byte("0"), 0) // where swap is accounted for
		settings["memory.max"] = strconv.FormatInt(int64(limits.Memory), 10)
		settings["memory.oom.group"] = "1"
	}
	if limits.CPUs > 0 {
		settings["cpu.max"] = fmt.Sprintf("%d %d", int64(limits.CPUs*cpuPeriod), cpuPeriod)
	}
	if limits.Processes > 0 {
		settings["pids.max"] = strconv.Itoa(limits.Processes)
	}
	for name, value := range settings {
		if err := os.WriteFile(filepath.Join(c.path, name), []byte(value), 0); err != nil {
			_ = os.Remove(c.path)
			return nil, err
		}
	}
	if c.dir, err = os.Open(c.path); err != nil {
		return nil, err
	}
	w.cgroup = c
	return c, nil
}

// cgroupBase gives the directory that cgroups of steps are made in: below the agent's own cgroup if that is empty, or below the root.
func cgroupBase() (string, error) {
	root, err := cgroupRoot()
	if err != nil {
		return "", err
	}
	var wrong error
	for _, parent := range []string{filepath.Join(root, ownCgroup()), root} {
		base := filepath.Join(parent, cgroupName)
		if wrong = useControllers(parent, base); wrong == nil {
			return base, nil
		}
	}
	return "", fmt.Errorf("its cgroups cannot be used: %w", wrong)
}

// LimitsBy says how this host bounds what a step's processes use: cgroup, all of them together, or ulimit, each of them.
func LimitsBy() string {
	root, err := cgroupRoot()
	if err != nil {
		return "ulimit"
	}
	for _, parent := range []string{filepath.Join(root, ownCgroup()), root} {
		have, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
		if err == nil && hasWords(string(have), controllers) && unix.Access(filepath.Join(parent, "cgroup.subtree_control"), unix.W_OK) == nil {
			return "cgroup"
		}
	}
	return "ulimit"
}

func useControllers(parent, base string) error {
	have, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
	if err != nil {
		return err
	}
	if !hasWords(string(have), controllers) {
		return fmt.Errorf("%s has not all of the controllers %s", parent, strings.Join(controllers, ", "))
	}
	enable := []byte("+" + strings.Join(controllers, " +"))
	if on, err := os.ReadFile(filepath.Join(parent, "cgroup.subtree_control")); err != nil || !hasWords(string(on), controllers) {
		if err := os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), enable, 0); err != nil {
			return err
		}
	}
	if err := os.Mkdir(base, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return os.WriteFile(filepath.Join(base, "cgroup.subtree_control"), enable, 0)
}

func hasWords(text string, words []string) bool {
	have := strings.Fields(text)
	for _, word := range words {
		if !slices.Contains(have, word) {
			return false
		}
	}
	return true
}

// cgroupRoot is where cgroup v2 is mounted.
func cgroupRoot() (string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if ok && strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 {
			return fields[4], nil
		}
	}
	return "", errors.New("it has no cgroup v2")
}

func ownCgroup() string {
	text, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSpace(path)
		}
	}
	return "/"
}

// checkLimits says whether the limits can be kept on this host, before the process begins.
func (p *process) checkLimits(w *wrapper) error {
	if p.limits == nil || p.limits.CPUs == 0 {
		return nil
	}
	if _, err := w.limitedBy(p.limits); err != nil {
		return release.Invalid("limits.cpus", "this host cannot limit CPUs: %v", err)
	}
	return nil
}

// startLimited starts a process within its limits, by the step's cgroup and by rlimits. It stands still before its first instruction
// until they hold. The thread is locked.
func (w *wrapper) startLimited(cmd *exec.Cmd, limits *release.ProcessLimits) error {
	rlimits := map[int]uint64{}
	if limits.OpenFiles > 0 {
		rlimits[unix.RLIMIT_NOFILE] = uint64(limits.OpenFiles)
	}
	if limits.FileSize > 0 {
		rlimits[unix.RLIMIT_FSIZE] = uint64(limits.FileSize)
	}
	if limits.Memory > 0 || limits.CPUs > 0 || limits.Processes > 0 {
		group, err := w.limitedBy(limits)
		switch {
		case err == nil:
			cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(group.dir.Fd())
		case limits.CPUs > 0:
			return release.Invalid("limits.cpus", "this host cannot limit CPUs: %v", err)
		default:
			if limits.Memory > 0 {
				rlimits[unix.RLIMIT_AS] = uint64(limits.Memory)
			}
			if limits.Processes > 0 {
				rlimits[unix.RLIMIT_NPROC] = uint64(limits.Processes)
			}
		}
	}
	if len(rlimits) == 0 {
		return cmd.Start()
	}
	cmd.SysProcAttr.Ptrace = true // it stops when it has become the program
	if err := cmd.Start(); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	err := limit(pid, rlimits)
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return fmt.Errorf("limits: %w", err)
	}
	return nil
}

func limit(pid int, rlimits map[int]uint64) error {
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &status, 0, nil)
		if !errors.Is(err, syscall.EINTR) {
			if err != nil {
				return fmt.Errorf("wait for the process: %w", err)
			}
			break
		}
	}
	if !status.Stopped() {
		return errors.New("the process ended at once")
	}
	for resource, value := range rlimits {
		var now unix.Rlimit
		if err := unix.Prlimit(pid, resource, nil, &now); err == nil {
			value = min(value, now.Max) // what holds already is stricter
		}
		if err := unix.Prlimit(pid, resource, &unix.Rlimit{Cur: value, Max: value}, nil); err != nil {
			return fmt.Errorf("prlimit: %w", err)
		}
	}
	if err := syscall.PtraceDetach(pid); err != nil {
		return fmt.Errorf("let the process go: %w", err)
	}
	return nil
}
