// Package examples_test builds the examples of library use as the programs of another module, with nothing but what that
// can import, and runs them.
package examples_test

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const patience = time.Minute // for a program; building one may take longer

// own is what a program writes that keeps its agents itself.
const own = `package main

import (
	"context"
	"time"

	"github.com/quicflow/quicflow/hub"
)

type own struct{ *hub.Memory }

var _ interface {
	hub.Registry
	hub.Enroller
	hub.Sink
} = own{}

func (own) RedeemJoinToken(_ context.Context, r hub.Redemption) error {
	if r.TokenHash == "" {
		return hub.ErrTokenUnknown
	}
	return nil
}

func (own) RecordCertificate(context.Context, string, string, time.Time, string) error { return nil }

func (own) CertificateValid(context.Context, string, string) (bool, error) { return true, nil }

func (own) ConnectClients(context.Context, []hub.ClientSession) (map[string]hub.ClientEntry, error) {
	return nil, nil
}

func (own) StoreFacts(context.Context, []hub.ClientFacts) error { return nil }

func (own) DisconnectClients(context.Context, []hub.ClientEnd) error { return nil }
`

// build compiles an example outside of this module, offline, and gives the program.
func build(t *testing.T, name string) string {
	t.Helper()
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	dir := t.TempDir()
	read := func(parts ...string) []byte {
		text, err := os.ReadFile(filepath.Join(append([]string{root}, parts...)...))
		require.NoError(t, err)
		return text
	}
	const module = "module github.com/quicflow/quicflow\n"
	mod := string(read("go.mod"))
	require.True(t, strings.HasPrefix(mod, module))
	mod = "module example.com/elsewhere\n" + strings.TrimPrefix(mod, module) +
		"\nrequire github.com/quicflow/quicflow v0.0.0\n\nreplace github.com/quicflow/quicflow => " + root + "\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte(mod), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.sum"), read("go.sum"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), read("examples", name, "main.go"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "own.go"), []byte(own), 0o600))
	program := filepath.Join(dir, name)
	compile := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".")
	compile.Dir = dir
	compile.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
	output, err := compile.CombinedOutput()
	require.NoError(t, err, "%s", output)
	return program
}

// run gives what a program prints until it ends by itself.
func run(t *testing.T, program string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	t.Logf("%s", stderr.String())
	return string(output), err
}

func TestEcho(t *testing.T) {
	t.Parallel()
	echo := build(t, "echo")
	server := exec.CommandContext(t.Context(), echo, "-listen", "127.0.0.1:0")
	stdout, err := server.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, server.Start())
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	line := func() string {
		select {
		case text := <-lines:
			return text
		case <-time.After(patience):
			require.FailNow(t, "the server says nothing")
			return ""
		}
	}
	// clients may come: echo -server ADDRESS -token TOKEN hello
	words := strings.Fields(line())
	require.Len(t, words, 9)
	address, token := words[5], words[7]

	output, err := run(t, echo, "-server", address, "-token", token, "hello", "you")
	require.NoError(t, err)
	require.Equal(t, "hello you\n", output)
	require.Equal(t, "client-1 says hello you", line())

	_, err = run(t, echo, "-server", address, "-token", token, "-id", "other", "hello")
	require.Error(t, err, "the token is not for that id")
	_, err = run(t, echo)
	require.Error(t, err, "neither server nor client")

	require.NoError(t, server.Process.Signal(os.Interrupt))
	for range lines { // its end
	}
	require.NoError(t, server.Wait(), "the server stops in order")
}

func TestCallback(t *testing.T) {
	t.Parallel()
	output, err := run(t, build(t, "callback"))
	require.NoError(t, err)
	require.Equal(t, `server: client-1 orders 3 apples; asking back
client: confirming 3 apples
server: client-1 answers yes
client: shipped 3 apples
client: send message "slow": no answer in time (timeout: true)
client: send message "return": message is not supported: the hub has no handler for "return" (unsupported: true)
server: request to agent client-1: no answer in time (timeout: true)
`, output)
}
