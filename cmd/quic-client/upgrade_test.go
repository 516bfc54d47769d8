package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

const (
	patience = 30 * time.Second

	// clientVariable turns the test's binary into quic-client. Its version is what its file says at the end.
	clientVariable = "QUICFLOW_TEST_CLIENT"
	trailer        = "\nVERSION "
)

// Versions that fail in their own way.
const (
	crashes = "crashes" // at once
	silent  = "silent"  // never connects
)

func runClient() {
	text, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		panic(err)
	}
	version = string(text[bytes.LastIndex(text, []byte(trailer))+len(trailer):])
	if len(os.Args) < 2 || os.Args[1] != "version" {
		switch version {
		case crashes:
			os.Exit(3)
		case silent:
			<-time.After(time.Hour)
		}
	}
	main()
}

// program writes a quic-client of a version.
func program(t *testing.T, path, version string) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	text, err := os.ReadFile(self)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, append(text, trailer+version...), 0o755))
}

// sink keeps results.
type sink struct {
	*hub.Memory
	mu      sync.Mutex
	results map[string]release.StepResult
}

func (s *sink) RecordResults(ctx context.Context, results []release.StepResult) ([]release.Step, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range results {
		if _, known := s.results[r.StepID]; !known {
			s.results[r.StepID] = r
		}
	}
	return s.Memory.RecordResults(ctx, results)
}

func (s *sink) result(id string) (release.StepResult, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.results[id]
	return r, ok
}

// upgraded is a hub and an agent in a process of its own.
type upgraded struct {
	t        *testing.T
	hub      *hub.Hub
	sink     *sink
	dir      string // data
	bin      string // the agent's program
	token    string
	cmd      *exec.Cmd
	ended    chan struct{}
	goodbyes chan error
}

func startHost(t *testing.T) *upgraded {
	t.Helper()
	ca, err := hub.OpenCA(t.TempDir())
	require.NoError(t, err)
	s := &sink{Memory: hub.NewMemory(), results: map[string]release.StepResult{}}
	h := &upgraded{t: t, sink: s, dir: filepath.Join(t.TempDir(), "data"), bin: filepath.Join(t.TempDir(), "quic-client"), goodbyes: make(chan error, 100)}
	h.hub, err = hub.New(hub.Config{
		Addr: "127.0.0.1:0", NodeID: "node", CA: ca, Registry: s, Sink: s, Enroller: s, Logger: slog.New(slog.DiscardHandler),
		DrainTimeout: time.Second, Hooks: hub.Hooks{OnDisconnect: func(_ hub.Event, cause error) { h.goodbyes <- cause }},
	})
	require.NoError(t, err)
	require.NoError(t, h.hub.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, h.hub.Stop(ctx))
	})
	token, err := s.JoinToken(ca, "*")
	require.NoError(t, err)
	program(t, h.bin, "1.0")
	h.token = token
	h.start()
	require.Equal(t, "1.0", h.status().Version)
	return h
}

// start starts the agent.
func (h *upgraded) start() {
	t := h.t
	h.cmd = exec.Command(h.bin, "--server", h.hub.Addr().String(), "--id", "web-1", "--data-dir", h.dir, "--token", h.token)
	h.cmd.Env = append(os.Environ(), clientVariable+"=1")
	h.cmd.Stderr, h.cmd.Stdout = testLog{t}, io.Discard
	h.cmd.WaitDelay = time.Second
	require.NoError(t, h.cmd.Start())
	ended, cmd := make(chan struct{}), h.cmd
	h.ended = ended
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			<-ended
		}
	})
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// step asks for a command until the agent answers.
func (h *upgraded) step(job, kind, payload string) *quicflowv1.StepStatus {
	h.t.Helper()
	request := &quicflowv1.Request{Body: &quicflowv1.Request_Step{Step: &quicflowv1.StepRequest{
		StepId: release.StepID(job, "command", "web-1", 0), TaskId: job, NotAfterUnixMs: time.Now().Add(time.Hour).UnixMilli(),
		Spec: &quicflowv1.StepRequest_Command{Command: &quicflowv1.CommandStep{Type: kind, Payload: []byte(payload), TimeoutMs: 60_000}},
	}}}
	var status *quicflowv1.StepStatus
	require.Eventually(h.t, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		response, err := h.hub.Request(ctx, "web-1", request)
		status = response.GetStep()
		return err == nil && status != nil
	}, patience, 10*time.Millisecond)
	return status
}

var asked int

func (h *upgraded) status() (s agent.Status) {
	h.t.Helper()
	asked++
	require.NoError(h.t, json.Unmarshal(h.step(fmt.Sprint("status", asked), "get_status", "").GetResult().GetResult(), &s))
	return s
}

// upgrade runs the command with the program of a version.
func (h *upgraded) upgrade(version string, args ...string) (string, error) {
	h.t.Helper()
	file := filepath.Join(h.t.TempDir(), "download")
	program(h.t, file, version)
	cmd := exec.Command(h.bin, append([]string{"upgrade", "--binary", file, "--id", "web-1", "--data-dir", h.dir}, args...)...)
	cmd.Env = append(os.Environ(), clientVariable+"=1")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (h *upgraded) versionAt(path string) string {
	h.t.Helper()
	cmd := exec.Command(path, "version")
	cmd.Env = append(os.Environ(), clientVariable+"=1")
	out, err := cmd.Output()
	require.NoError(h.t, err)
	return strings.Fields(string(out))[1]
}

// A script runs across an upgrade, in the end under an agent of another version in the same process.
func TestUpgradeInPlace(t *testing.T) {
	h := startHost(t)
	before := h.status()
	h.step("long", "exec_shell", fmt.Sprintf(`{"command":"echo ran >> runs; while [ ! -e go ]; do sleep 0.01; done; echo done","work_dir":%q}`, h.dir))
	runs := filepath.Join(h.dir, "runs")
	require.Eventually(t, func() bool { _, err := os.Stat(runs); return err == nil }, patience, 10*time.Millisecond)

	out, err := h.upgrade("2.0")
	require.NoError(t, err, out)
	require.Contains(t, out, "is now quic-client 2.0")
	after := h.status()
	require.Equal(t, "2.0", after.Version)
	require.Equal(t, before.PID, after.PID, "systemd sees the same process")
	require.Equal(t, before.Journal.ID, after.Journal.ID)
	require.Equal(t, "2.0", h.versionAt(h.bin))
	require.Equal(t, "1.0", h.versionAt(h.bin+previousSuffix))
	require.NoFileExists(t, h.bin+newSuffix)

	require.NoError(t, os.WriteFile(filepath.Join(h.dir, "go"), nil, 0o600))
	id := release.StepID("long", "command", "web-1", 0)
	require.Eventually(t, func() bool { _, ok := h.sink.result(id); return ok }, patience, 10*time.Millisecond)
	result, _ := h.sink.result(id)
	require.Equal(t, release.StepSucceeded, result.State, result.Error)
	require.Equal(t, "done\n", string(result.StdoutTail))
	text, err := os.ReadFile(runs)
	require.NoError(t, err)
	require.Equal(t, "ran\n", string(text))
	for range len(h.goodbyes) {
		require.NotErrorIs(t, <-h.goodbyes, hub.ErrGoodbye, "the host counts as reconnecting, not as offline")
	}

	out, err = h.upgrade("3.0") // and once more, from a program that took another's place
	require.NoError(t, err, out)
	require.Equal(t, "3.0", h.status().Version)
	require.Equal(t, "2.0", h.versionAt(h.bin+previousSuffix))
}

func TestUpgradeThatFailsChangesNothing(t *testing.T) {
	h := startHost(t)
	before := h.status()
	for version, want := range map[string]string{
		crashes: "ended before a server accepted its session (exit status 3)",
		silent:  "no server accepted a session of the new version within 500ms",
	} {
		out, err := h.upgrade(version, "--timeout", "500ms")
		require.Error(t, err)
		require.Contains(t, out, "the previous version runs on: ")
		require.Contains(t, out, want)
		after := h.status()
		require.Equal(t, "1.0", after.Version)
		require.Equal(t, before.PID, after.PID)
		require.NoFileExists(t, h.bin+newSuffix)
		require.NoFileExists(t, h.bin+previousSuffix)
		require.Equal(t, "1.0", h.versionAt(h.bin))
	}
	select {
	case <-h.ended:
		require.Fail(t, "the agent ended")
	default:
	}
}

// The agent is killed while it tries a program that hangs: that goes with it, and the old one is still in place.
func TestKilledDuringAnUpgrade(t *testing.T) {
	h := startHost(t)
	upgraded := make(chan error, 1)
	go func() {
		_, err := h.upgrade(silent)
		upgraded <- err
	}()
	trial := 0
	require.Eventually(t, func() bool {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", h.cmd.Process.Pid))
		require.NoError(t, err)
		for _, file := range files {
			text, _ := os.ReadFile(file)
			if _, err := fmt.Sscan(string(text), &trial); err == nil {
				return true
			}
		}
		return false
	}, patience, 10*time.Millisecond)
	require.NoError(t, h.cmd.Process.Kill())
	<-h.ended
	require.Error(t, <-upgraded)
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", trial))
		return err != nil || strings.Contains(string(text), ") Z ")
	}, patience, 10*time.Millisecond)
	require.Equal(t, "1.0", h.versionAt(h.bin))
	h.start()
	require.Equal(t, "1.0", h.status().Version)
}

func TestUpgradeChecksTheProgram(t *testing.T) {
	dir := t.TempDir()
	h := &upgraded{t: t, bin: filepath.Join(dir, "quic-client"), dir: filepath.Join(dir, "data")}
	program(t, h.bin, "1.0")
	out, err := h.upgrade("2.0", "--sha256", strings.Repeat("0", 64))
	require.Error(t, err)
	require.Contains(t, out, "--sha256: ")
	other := filepath.Join(dir, "other")
	for text, want := range map[string]string{
		"#!/bin/sh\necho hello\n": `it says "hello", so it is no quic-client`,
		"#!/bin/sh\nexit 4\n":     "it does not tell its version: exit status 4",
		"rubbish":                 "it does not tell its version: ",
	} {
		require.NoError(t, os.WriteFile(other, []byte(text), 0o600))
		cmd := exec.Command(h.bin, "upgrade", "--data-dir", h.dir, "--binary", other)
		cmd.Env = append(os.Environ(), clientVariable+"=1")
		text, err := cmd.CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(text), want)
	}
	require.Equal(t, "1.0", h.versionAt(h.bin))
	require.NoFileExists(t, h.bin+newSuffix)

	// Without an agent the program is replaced at once.
	file := filepath.Join(dir, "second")
	program(t, file, "2.0")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	sum := sha256.Sum256(text)
	out, err = h.upgrade("2.0", "--sha256", hex.EncodeToString(sum[:]))
	require.NoError(t, err, out)
	require.Contains(t, out, "no agent runs in "+h.dir)
	require.Equal(t, "2.0", h.versionAt(h.bin))
	require.Equal(t, "1.0", h.versionAt(h.bin+previousSuffix))
}

func TestFactsCommand(t *testing.T) {
	out, err := execute(t, "facts", "--id", "web-1", "--label", "zone=eu", "--data-dir", t.TempDir())
	require.NoError(t, err)
	var f agent.Facts
	require.NoError(t, json.Unmarshal([]byte(out), &f))
	require.Equal(t, "eu", f.Labels["zone"])
	require.Contains(t, f.Capabilities, "container.logs")
	require.Positive(t, f.MemoryMB)
}
