// Package e2e tests QuicFlow from outside: real servers and agents as processes, driven over the HTTP API and by
// quic-ctl, killed and cut off at their worst moments.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// programs is where the binaries under test are; TestMain builds them with failpoints in.
var programs string

func TestMain(m *testing.M) {
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := stopPostgres(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func build() error {
	_, file, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(file), "..", "..")
	programs = filepath.Join(root, ".cache", "e2e") // kept: the go command links again only what changed
	if err := os.MkdirAll(programs, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"quic-server", "quic-client", "quic-ctl", "quic-loadtest"} {
		cmd := exec.Command("go", "build", "-tags", "failpoint", "-o", filepath.Join(programs, name), "./cmd/"+name)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return nil
}

func program(name string) string { return filepath.Join(programs, name) }
