package live

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	dockerlab "github.com/quicflow/quicflow/internal/lab/docker"
)

// labVariable turns the test's binary into one that starts a lab, which serves the images in this directory, and waits to be killed.
const labVariable = "QUICFLOW_TEST_LAB"

func labChild() int {
	l, err := dockerlab.Start(context.Background(), dockerlab.Options{Images: &dockerlab.Lab{Dir: os.Getenv(labVariable)}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(l.Dir)
	select {}
}

// A lab whose test was killed is gone once the next one starts.
func TestLabLeftBehind(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), labVariable+"="+lab.Dir)
	var errors bytes.Buffer
	cmd.Stderr = &errors
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	dir, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err, "%s", errors.String())
	dir = strings.TrimSpace(dir)
	p := projectOn(t, "unix://"+filepath.Join(dir, "engine.sock"))
	p.deploy("v1")
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	require.NotEmpty(t, processesOf(dir), "the engine lives on")
	p.host = "" // nothing is to be removed from it at the end

	var others []*dockerlab.Lab
	defer func() {
		for _, l := range others {
			require.NoError(t, l.Close())
		}
		require.Empty(t, processesOf(dir))
		require.NoDirExists(t, dir)
	}()
	// Tests beside this one may have their labs start at the same time.
	for len(others) < 8 {
		l, err := dockerlab.Start(t.Context(), dockerlab.Options{Images: lab})
		require.NoError(t, err)
		others = append(others, l)
		if l.Dir == dir {
			fresh := projectOn(t, l.Host)
			require.Empty(t, fresh.containers())
			fresh.host = ""
			return
		}
	}
	t.Fatal("no lab got the slot of the one that was killed")
}

// processesOf lists what runs with a directory in its arguments.
func processesOf(dir string) (lines []string) {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		text, _ := os.ReadFile(path)
		if line := string(bytes.ReplaceAll(text, []byte{0}, []byte{' '})); strings.Contains(line, dir+"/") {
			lines = append(lines, line)
		}
	}
	return lines
}
