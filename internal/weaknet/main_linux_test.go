package weaknet

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if err := ready(); err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: the tests on weak networks cannot run here: %v\n", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// ready finds out what this machine can do.
func ready() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("they need root, for network namespaces")
	}
	sweep()
	probe := fmt.Sprintf("qf%d-probe", os.Getpid())
	if out, err := exec.Command("ip", "netns", "add", probe).CombinedOutput(); err != nil {
		return fmt.Errorf("make a network namespace: %w: %s", err, out)
	}
	defer func() { _ = exec.Command("ip", "netns", "del", probe).Run() }()
	out, err := exec.Command("tc", "-n", probe, "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms").CombinedOutput()
	hasNetem = err == nil
	if !hasNetem {
		fmt.Printf("no netem (%s); a wire of the tests' own impairs instead\n", strings.TrimSpace(string(out)))
		if _, err := os.Stat("/dev/net/tun"); err != nil {
			return fmt.Errorf("neither netem nor TUN devices: %w", err)
		}
	}
	return nil
}

// sweep removes the namespaces of runs that were killed: they carry the id of a process that is no more.
func sweep() {
	names, _ := filepath.Glob("/var/run/netns/qf*-*")
	for _, name := range names {
		name = filepath.Base(name)
		pid, _, _ := strings.Cut(strings.TrimPrefix(name, "qf"), "-")
		if _, err := strconv.Atoi(pid); err != nil {
			continue
		}
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, os.ErrNotExist) {
			_ = exec.Command("ip", "netns", "del", name).Run()
		}
	}
}
