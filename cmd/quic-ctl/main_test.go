package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quicflow/quicflow/api/apitest"
	"github.com/quicflow/quicflow/internal/apiclient"
	"github.com/quicflow/quicflow/internal/release"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

type result struct {
	code     int
	out, err string
}

// quicCtl runs a command line against a server.
func quicCtl(t *testing.T, s *apitest.Server, args ...string) result {
	t.Helper()
	return quicCtlWith(t, map[string]string{"QUICFLOW_SERVER": s.URL, "QUICFLOW_TOKEN": s.Token}, args...)
}

func quicCtlWith(t *testing.T, env map[string]string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, problems bytes.Buffer
	code := run(ctx, terminal{in: strings.NewReader(""), out: &out, err: &problems}, func(name string) string { return env[name] }, args)
	return result{code, out.String(), problems.String()}
}

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file.yaml")
	require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

func TestByHandFromProjectToEnd(t *testing.T) {
	s := apitest.Start(t)
	clients := s.AddClients(3, map[string]string{"env": "prod"})
	r := quicCtl(t, s, "project", "create", "-f", file(t, "name: hello\nscript:\n  env: {PORT: \"80\"}\n"))
	require.Zero(t, r.code, r.err)
	r = quicCtl(t, s, "version", "create", "-f", file(t, "project: hello\nversion: \"1.0\"\nscript:\n  install: |\n    echo one\n"))
	require.Zero(t, r.code, r.err)
	r = quicCtl(t, s, "task", "create", "--project", "hello", "--version", "1.0", "--selector", "*")
	require.Equal(t, exitError, r.code)
	require.Contains(t, r.err, "draft")
	r = quicCtl(t, s, "version", "set-status", "hello", "1.0", "active")
	require.Zero(t, r.code, r.err)

	s.Rollouts.OnStart(func(task release.Task) {
		s.Dispatch(task, clients...)
		for _, client := range clients {
			s.Log(task.ID, client, "hello from "+client+"\nhalf ")
			s.Log(task.ID, client, "a line")
			s.Finish(task.ID, client, release.StepSucceeded, "", 0)
		}
		s.Progress(task.ID, release.StatusSucceeded, release.PhaseDone)
	})
	r = quicCtl(t, s, "task", "create", "--project", "hello", "--version", "1.0", "--selector", "env=prod", "--max-failures", "10%", "--watch")
	require.Zero(t, r.code, r.err)
	require.Contains(t, r.out, "✓ succeeded hello 1.0   3/3 done · 0 failed")
	for _, client := range clients {
		require.Equal(t, 1, strings.Count(r.out, client+" │ hello from "+client+"\n"), r.out)
		require.Equal(t, 1, strings.Count(r.out, client+" │ half a line\n"), r.out)
	}
	require.Contains(t, r.err, "3/3 done")
	require.NotContains(t, r.out+r.err, "\x1b", "no colours without a terminal")

	r = quicCtl(t, s, "installations", "--project", "hello")
	require.Equal(t, 3, strings.Count(r.out, "installed"), r.out)
	r = quicCtl(t, s, "task", "list", "-o", "json")
	var tasks []apiclient.Task
	require.NoError(t, json.Unmarshal([]byte(r.out), &tasks))
	require.Len(t, tasks, 1)
	require.Equal(t, "10%", tasks[0].Strategy.MaxFailures)
	r = quicCtl(t, s, "logs", tasks[0].ID, "--client", "client-2")
	require.Equal(t, "client-2 │ hello from client-2\nclient-2 │ half a line\n", r.out)
	r = quicCtl(t, s, "logs", "-f", tasks[0].ID)
	require.Equal(t, 6, strings.Count(r.out, "\n"), r.out)
	for _, args := range [][]string{
		{"clients"}, {"clients", "list", "--status", "online"}, {"clients", "get", "client-1"}, {"clients", "preview", "--selector", "*"}, {"project", "list"}, {"project", "get", "hello"},
		{"version", "list", "hello"}, {"version", "get", "hello", "1.0"}, {"task", "get", tasks[0].ID}, {"task", "targets", tasks[0].ID},
		{"preview", "--project", "hello", "--version", "1.0", "--selector", "*", "--canary", "10", "--env", "A=b"},
		{"task", "pause", tasks[0].ID, "--reason", "lunch"}, {"clients", "revoke", "client-1"}, {"version"},
	} {
		for _, format := range []string{"table", "json"} {
			r := quicCtl(t, s, append(args, "-o", format)...)
			require.Zero(t, r.code, "%v: %s", args, r.err)
			require.NotEmpty(t, r.out, "%v", args)
		}
	}
	require.Contains(t, s.Rollouts.Calls(), "pause "+tasks[0].ID+" admin lunch")
}

func TestWhomASelectorPicks(t *testing.T) {
	s := apitest.Start(t)
	s.AddClients(25, map[string]string{"env": "prod"})
	r := quicCtl(t, s, "clients", "--selector", "id in (client-1,client-2),env=prod")
	require.Zero(t, r.code, r.err)
	require.Equal(t, 3, strings.Count(r.out, "\n"), r.out)
	r = quicCtl(t, s, "clients", "preview", "--selector", "env=prod")
	require.Zero(t, r.code, r.err)
	require.Contains(t, r.out, "25 hosts: 25 online, 0 reconnecting, 0 offline\n")
	require.Contains(t, r.out, "… and 5 more\n")
	r = quicCtl(t, s, "clients", "preview", "--targets", "client-3,ghost")
	require.Zero(t, r.code, r.err)
	require.Contains(t, r.out, "1 host: 1 online")
	require.Contains(t, r.out, "! not known: ghost\n")
	r = quicCtl(t, s, "clients", "preview")
	require.Equal(t, exitUsage, r.code)
	for _, args := range [][]string{{"clients", "preview", "--selector", "web-*"}, {"clients", "--selector", "web-*"}} {
		r = quicCtl(t, s, args...)
		require.Equal(t, exitError, r.code)
		require.Contains(t, r.err, `"web-*" is no key; id=web-* picks hosts by their id`)
	}
}

func TestExitCodeTellsTheOutcome(t *testing.T) {
	s := apitest.Start(t)
	clients := s.AddClients(2, nil)
	v := s.AddVersion("hello", "1.0")
	for _, c := range []struct {
		status release.Status
		state  release.StepState
		code   int
	}{
		{release.StatusSucceeded, release.StepSucceeded, exitOK},
		{release.StatusPartial, release.StepFailed, exitTaskPartial},
		{release.StatusFailed, release.StepFailed, exitTaskFailed},
	} {
		task := s.AddTask(v, clients...)
		for _, client := range clients {
			s.Finish(task.ID, client, c.state, map[bool]string{true: "exit 7: no space"}[c.state == release.StepFailed], 0)
		}
		s.Progress(task.ID, c.status, release.PhaseDone)
		r := quicCtl(t, s, "task", "watch", task.ID)
		require.Equal(t, c.code, r.code, r.out+r.err)
		require.Contains(t, r.out, string(c.status))
		if c.state == release.StepFailed {
			require.Contains(t, r.out, "2 failed: exit 7: no space   client-1, client-2")
		}
	}
	for _, args := range []string{"nonsense", "task nonsense", "task get", "task create", "project create", "clients --nonsense", "clients -o xml",
		"task create --project x --waves a,b", "version create -f /dev/null/x"} {
		r := quicCtl(t, s, strings.Fields(args)...)
		if strings.Contains(args, "/dev/null") {
			require.Equal(t, exitError, r.code, args)
			continue
		}
		require.Equal(t, exitUsage, r.code, "%s: %s", args, r.err)
	}
	require.Equal(t, exitError, quicCtl(t, s, "task", "get", "nope").code)
	require.Equal(t, exitError, quicCtl(t, s, "task", "watch", "nope").code)
}

func TestFilesAreStrictAndNameTheLine(t *testing.T) {
	s := apitest.Start(t)
	s.AddClients(1, nil)
	s.AddVersion("hello", "1.0")
	for _, c := range []struct{ command, text, want string }{
		{"project", "name: x\nscript:\n  envs: {}\n", "file.yaml:3: script.envs: unknown key"},
		{"project", "name: x\nscript:\n  env:\n    PORT: 8080\n", `file.yaml:4: script.env.PORT: expected string; put it in quotes: "8080"`},
		{"project", "name: x\nname: y\n", `line 2: mapping key "name" already defined`},
		{"project", "name: [\n", "line"},
		{"project", "name: x\n---\nname: y\n", "more than one document"},
		{"project", "- name: x\n", "file.yaml:1: want keys with values"},
		{"project", "---\n", "want keys with values"},
		{"project", "name: x\nscript:\n  env: {1: a}\n", `file.yaml:3: script.env.1: a key must be text; put it in quotes: "1"`},
		{"project", "name: x\nscript: {timeout: .nan}\n", "file.yaml:2: script.timeout: .nan is not a number"},
		{"project", "", "is empty"},
		{"version", "project: hello\nversion: 2.0\nscript:\n  install: x\n", `file.yaml:2: version: expected string; put it in quotes: "2.0"`},
		{"version", "project: hello\nversion: \"2\"\nscript:\n  update: x\n", "file.yaml: script.install: a version needs a script that installs it, or artifacts"},
		{"version", "project: nope\nversion: \"2\"\nscript: {install: x}\n", `project "nope" does not exist`},
		{"task", "project: hello\nversion: \"1.0\"\ntargets: {selector: \"*\"}\nstrategy:\n  canary: {percent: 120}\n", "file.yaml:5: strategy.canary.percent: expected number <= 100"},
		{"task", "project: hello\nversion: \"1.0\"\ntargets: {selector: \"*\"}\nstrategy:\n  waves: [25, 10]\n", "file.yaml:5: strategy.waves: "},
		{"task", "project: hello\nversion: \"1.0\"\n", "targets: is empty"},
		{"task", "project: hello\nversion: \"1.0\"\ntargets: {clients: [ghost]}\n", "file.yaml:3: targets.clients: "},
	} {
		r := quicCtl(t, s, c.command, "create", "-f", file(t, c.text))
		require.Equal(t, exitError, r.code, c.text)
		require.Contains(t, r.err, c.want, c.text)
		require.Empty(t, r.out)
	}
	require.Empty(t, s.Rollouts.Calls())

	r := quicCtl(t, s, "task", "create", "-f", file(t, "project: hello\nversion: \"0.9\"\ntargets: {selector: \"*\"}\nstrategy:\n  max_failures: 3\n"),
		"--version", "1.0", "--waves", "50,100%", "--canary", "5", "-o", "json")
	require.Zero(t, r.code, r.err)
	var task apiclient.Task
	require.NoError(t, json.Unmarshal([]byte(r.out), &task))
	require.Equal(t, "1.0", task.Version)
	require.Equal(t, "3", task.Strategy.MaxFailures)
	require.Equal(t, []float64{50, 100}, task.Strategy.Waves)
	require.InDelta(t, 5, task.Strategy.Canary.Percent, 0)
}

func TestAgentTokenIsAloneOnTheLastLine(t *testing.T) {
	s := apitest.Start(t)
	r := quicCtl(t, s, "agent", "token", "--uses", "3", "--ttl", "2h", "--id", "web-*", "--replace")
	require.Zero(t, r.code, r.err)
	require.Regexp(t, `^qfj1\.[\w-]+\.[\w-]+\n$`, r.out)
	r = quicCtl(t, s, "agent", "token", "--ttl", "9999h")
	require.Equal(t, exitError, r.code)
	require.Contains(t, r.err, "ttl")
}

// watch goes on over lost connections; each line comes once.
func TestWatchSurvivesRestarts(t *testing.T) {
	s := apitest.Start(t)
	clients := s.AddClients(1, nil)
	task := s.AddTask(s.AddVersion("hello", "1.0"), clients...)
	const lines, cuts = 60, 3
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := range lines {
			s.Log(task.ID, clients[0], fmt.Sprintf("line %d\n", i))
			if i%(lines/cuts) == lines/cuts/2 {
				s.Cut()
			}
		}
		s.Finish(task.ID, clients[0], release.StepSucceeded, "", 0)
		s.Progress(task.ID, release.StatusSucceeded, release.PhaseDone)
	}()
	r := quicCtl(t, s, "task", "watch", task.ID, "--logs")
	<-written
	require.Zero(t, r.code, r.err)
	for i := range lines {
		require.Equal(t, 1, strings.Count(r.out, fmt.Sprintf("│ line %d\n", i)), r.out)
	}
}

// The connection is cut while nothing happens, so that the reader must notice and say it.
func TestWatchSaysThatTheConnectionWasLost(t *testing.T) {
	s := apitest.Start(t)
	clients := s.AddClients(1, nil)
	task := s.AddTask(s.AddVersion("hello", "1.0"), clients...)
	api, err := apiclient.New(apiclient.Config{Server: s.URL, Token: s.Token})
	require.NoError(t, err)
	resumed := int64(-1)
	follower := &apiclient.Follower{API: api, TaskID: task.ID, Lost: func(error) {
		s.Log(task.ID, clients[0], "while away\n")
		s.Finish(task.ID, clients[0], release.StepSucceeded, "", 0)
		s.Progress(task.ID, release.StatusSucceeded, release.PhaseDone)
	}, Resumed: func(after int64) { resumed = after }}
	s.Log(task.ID, clients[0], "before\n")
	var text string
	cut := false
	for event, err := range follower.Events(t.Context()) {
		require.NoError(t, err)
		if event.Log != nil {
			text += event.Log.Text
		}
		if event.Task != nil && !cut {
			cut = true
			s.Cut()
		}
	}
	require.Equal(t, "before\nwhile away\n", text)
	require.EqualValues(t, 1, resumed)
}

func TestInterruptedWatchSaysThatTheTaskGoesOn(t *testing.T) {
	s := apitest.Start(t)
	clients := s.AddClients(1, nil)
	task := s.AddTask(s.AddVersion("hello", "1.0"), clients...)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, problems bytes.Buffer
	env := map[string]string{"QUICFLOW_SERVER": s.URL, "QUICFLOW_TOKEN": s.Token}
	interrupt := writerFunc(func(p []byte) (int, error) { // as soon as there is some progress to see
		cancel()
		return problems.Write(p)
	})
	code := run(ctx, terminal{out: &out, err: interrupt}, func(name string) string { return env[name] }, []string{"task", "watch", task.ID})
	require.Equal(t, exitInterrupted, code)
	require.Contains(t, problems.String(), "The task goes on")
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestFindsTheLocalServer(t *testing.T) {
	s := apitest.Start(t)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "endpoint.json"), []byte(`{"api":"`+s.URL+`","quic":"127.0.0.1:1","ui":"x"}`), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "admin.token"), []byte(s.Token+"\n"), 0o600))
	lock, err := os.Create(filepath.Join(dir, "lock"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = lock.Close() })

	// Whoever listens while no server runs is not given the token.
	r := quicCtlWith(t, nil, "clients", "--data-dir", dir)
	require.Equal(t, exitError, r.code)
	require.Contains(t, r.err, "no server runs on "+dir)
	r = quicCtlWith(t, nil, "clients", "--data-dir", dir, "--server", s.URL)
	require.Contains(t, r.err, "Give a token")
	require.NoError(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))

	require.Zero(t, quicCtlWith(t, nil, "clients", "--data-dir", dir).code)
	require.Zero(t, quicCtlWith(t, nil, "clients", "--data-dir", dir, "--server", s.URL).code)

	r = quicCtlWith(t, nil, "clients", "--data-dir", filepath.Join(dir, "nowhere"))
	require.Equal(t, exitError, r.code)
	require.Contains(t, r.err, "nowhere")

	r = quicCtlWith(t, nil, "clients", "--data-dir", dir, "--token", "wrong")
	require.Equal(t, exitError, r.code)
	require.Contains(t, r.err, "--token")

	// The token of this machine goes to no other, nor to another program on this one.
	for _, server := range []string{"https://quicflow.example", "http://quicflow.example", "http://127.0.0.1:1", "http://localhost", strings.Replace(s.URL, "http", "https", 1)} {
		o := options{server: server, dataDir: dir, output: "table"}
		require.NoError(t, o.check(func(string) string { return "" }))
		require.Empty(t, o.token, server)
		require.Equal(t, server, o.server)
	}
	o := options{server: strings.Replace(s.URL, "127.0.0.1", "localhost", 1), dataDir: dir, output: "table"}
	require.NoError(t, o.check(func(string) string { return "" }))
	require.Equal(t, s.Token, o.token)
	require.Equal(t, s.URL, o.server, "localhost may be an address at which another user's program listens")
}

func TestServerThatDoesNotAnswer(t *testing.T) {
	r := quicCtlWith(t, map[string]string{"QUICFLOW_SERVER": "http://127.0.0.1:1"}, "clients")
	require.Equal(t, exitError, r.code)
	require.Contains(t, r.err, "server http://127.0.0.1:1 does not answer")
}

func TestProgressLine(t *testing.T) {
	now := time.Now()
	task := apiclient.Task{
		ID: "T", Status: "running", Phase: "soak", SoakUntil: now.Add(3500 * time.Millisecond),
		Waves:  []apiclient.Wave{{Number: 0, Size: 2, Canary: true}, {Number: 1, Size: 8}},
		Counts: apiclient.Counts{Total: 10, Pending: 8, Succeeded: 2},
	}
	require.Equal(t, "canary 2/2 ✓  soak 4s left   2/10 done · 0 failed", progressLine(task, now))
	task.Phase, task.Wave = "wave", 1
	task.Counts = apiclient.Counts{Total: 10, Pending: 4, Running: 1, Succeeded: 4, Offline: 1}
	require.Equal(t, "canary 2/2 ✓  wave 1: 3/8   4/10 done · 0 failed · 1 offline · 1 running", progressLine(task, now))
	task.Status = "paused"
	require.Contains(t, progressLine(task, now), "paused; nothing new starts")
	task.Status, task.Phase = "running", "promotion"
	require.Contains(t, progressLine(task, now), "quic-ctl task promote T")
	require.Equal(t, "██████████░░░░░░░░░░", bar(5, 10, 20))
}

// What a host wrote must not steer the terminal that shows it.
func TestHostsDoNotSteerTheTerminal(t *testing.T) {
	const nasty = "\x1b[2J \x9b31m \u009b31m \u202egnp.exe \x7f\ttab ✓"
	require.Equal(t, "�[2J �31m �31m �gnp.exe �\ttab ✓", printable(strings.ToValidUTF8(nasty, "�")))

	var out bytes.Buffer
	c := terminal{out: &out}
	require.NoError(t, c.writeJSON(map[string]string{"text": nasty[:4] + nasty[9:]}))
	require.NotContains(t, strings.TrimSuffix(out.String(), "\n"), "\u009b")
	for _, r := range out.String() {
		require.True(t, r == '\n' || !steers(r), "%U", r)
	}
	var back map[string]string
	require.NoError(t, json.Unmarshal(out.Bytes(), &back), "it is still JSON, and says the same")
	require.Equal(t, nasty[:4]+nasty[9:], back["text"])

	var problems bytes.Buffer
	(&cli{terminal: terminal{err: &problems}}).explain(fmt.Errorf("first\x1b[2J\nsecond"))
	require.Equal(t, "quic-ctl: first�[2J\nsecond\n", problems.String())
}

// A line without an end is not collected for ever.
func TestLongLinesAreShownInPieces(t *testing.T) {
	var out bytes.Buffer
	p := newLogPrinter(&cli{terminal: terminal{out: &out}, options: options{output: "table"}})
	for range 5 {
		p.print(apiclient.LogLine{ClientID: "web-1", Stream: "stdout", Text: strings.Repeat("x", maxLine/2)})
	}
	require.Equal(t, 1, strings.Count(out.String(), "\n"))
	p.flush()
	require.Equal(t, 5*maxLine/2, strings.Count(out.String(), "x"))
}
