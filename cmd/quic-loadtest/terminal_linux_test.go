package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// openTerminal gives both ends of a pseudo terminal: what a program writes to the one comes out of the other.
func openTerminal(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = ours.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetUint32(int(ours.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	theirs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	return ours, theirs
}

// On a terminal one line is rewritten, and gone at the end.
func TestLiveLine(t *testing.T) {
	b := startServer(t, 100)
	ours, theirs := openTerminal(t)
	var shown output
	p := &process{t: t, cmd: exec.Command(binary, "-s", b.addr, "-n", "3", "-p", "load", "--identities", t.TempDir(), "--token", b.token(3),
		"--report-interval", "3600")}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, theirs
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	require.NoError(t, theirs.Close())
	over := make(chan struct{})
	go func() {
		defer close(over)
		buffer := make([]byte, 4096)
		for {
			n, err := ours.Read(buffer)
			_, _ = shown.Write(buffer[:n])
			if err != nil {
				return // no one has the other end any more
			}
		}
	}()
	again := regexp.MustCompile(`\r\x1b\[K[^\n]*accepted 3/3  [^\n]*  RSS [1-9][0-9]* MiB\r\x1b\[K[^\n]*accepted 3/3`)
	eventually(t, "the line is rewritten", func() bool { return again.MatchString(shown.String()) })
	p.signal(os.Interrupt)
	require.Zero(t, p.wait(), shown.String())
	<-over
	require.True(t, bytes.HasSuffix([]byte(shown.String()), []byte("\r\x1b[K")), "%q", shown.String())
	require.Contains(t, p.out.String(), "3 of 3 agents")
}
