package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/executortest"
	"github.com/quicflow/quicflow/agent/executor/script"
	"github.com/quicflow/quicflow/agent/executor/wrapper"
	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

const patience = 20 * time.Second

// helloVariable turns the test's binary into the service itself.
const helloVariable = "TEST_HELLO"

func TestMain(m *testing.M) {
	wrapper.MaybeRun(script.New())
	if os.Getenv(helloVariable) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// read reads a YAML file as the server would, refusing what it does not know.
func read(t *testing.T, file string, into any, without ...string) {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	values := map[string]any{}
	require.NoError(t, yaml.Unmarshal(text, &values))
	for _, key := range without {
		delete(values, key)
	}
	body, err := json.Marshal(values)
	require.NoError(t, err)
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	require.NoError(t, decoder.Decode(into))
}

// The example's own scripts, run by the agent's own executor: installed, installed again, updated, removed.
func TestLifeOfHello(t *testing.T) {
	var project release.Project
	read(t, "project.yaml", &project)
	require.NoError(t, project.Validate())
	port := freePort(t)
	h := &host{t: t, dir: t.TempDir(), project: project, port: port}
	t.Cleanup(h.stop)
	h.executor = executortest.NewSet(t, executor.Host{ClientID: "host", DataDir: h.dir, Labels: map[string]string{"port": strconv.Itoa(port)}}, script.New())

	h.carryOut("1.0", release.StepInstall)
	require.Equal(t, "hello 1.0\n", h.get())
	h.carryOut("1.0", release.StepInstall)
	require.Equal(t, "hello 1.0\n", h.get())
	h.carryOut("2.0", release.StepUpdate)
	require.Equal(t, "hello 2.0\n", h.get())

	// It died, and left its file behind.
	require.NoError(t, syscall.Kill(h.pid(), syscall.SIGKILL))
	h.carryOut("1.0", release.StepRollbackTo)
	require.Equal(t, "hello 1.0\n", h.get())

	h.carryOut("1.0", release.StepUninstall)
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	}, patience, 5*time.Millisecond)
	h.carryOut("1.0", release.StepUninstall)
}

func freePort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

type host struct {
	t        *testing.T
	dir      string
	project  release.Project
	port     int
	executor *executor.Set
	steps    int
}

func (h *host) carryOut(name string, action release.StepAction) {
	h.t.Helper()
	var version release.Version
	read(h.t, "version-"+name+".yaml", &version)
	require.NoError(h.t, version.ValidateFor(h.project.Type))
	require.NoError(h.t, version.Deployable())
	require.Equal(h.t, h.project.Name, version.Project)
	program, err := os.Executable()
	require.NoError(h.t, err)
	c := release.Merge(h.project, version, release.Override{Env: map[string]string{"HELLO_BIN": program, helloVariable: "1"}})
	c.Script.Health.Interval, c.Script.Health.Timeout, c.Script.Health.Retries = release.Duration(20*time.Millisecond), release.Duration(time.Second), 500
	config, err := c.JSON()
	require.NoError(h.t, err)
	h.steps++
	log := spool.NewWriter(spool.Config{Path: filepath.Join(h.dir, "steps", strconv.Itoa(h.steps), "spool")})
	defer log.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	result := h.executor.Run(ctx, &quicflowv1.StepRequest{
		StepId: release.StepID("task", release.StepDeploy, "host", h.steps), TaskId: "task", Action: string(action),
		Project: h.project.Name, Version: name, NotAfterUnixMs: time.Now().Add(time.Hour).UnixMilli(),
		Spec: &quicflowv1.StepRequest_Deploy{Deploy: &quicflowv1.DeployStep{Type: string(c.Type), Config: config}},
	}, log)
	require.NotNil(h.t, result)
	said, _ := os.ReadFile(filepath.Join(h.dir, "projects", "hello", "hello.log"))
	require.Equal(h.t, quicflowv1.Outcome_OUTCOME_SUCCEEDED, result.Outcome, "%s: %s\n%s", result.Error, result.StderrTail, said)
}

func (h *host) get() string {
	h.t.Helper()
	response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", h.port))
	require.NoError(h.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(h.t, err)
	return string(text)
}

func (h *host) pid() int {
	text, err := os.ReadFile(filepath.Join(h.dir, "projects", "hello", "hello.pid"))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

func (h *host) stop() {
	if pid := h.pid(); pid > 1 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}
