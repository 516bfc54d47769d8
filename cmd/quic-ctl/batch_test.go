package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/api/apitest"
	"github.com/quicflow/quicflow/internal/apiclient"
	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// carry makes jobs run: outcome says how each host fares, after it has printed text.
func carry(s *apitest.Server, outcome func(client string) (text string, r release.StepResult)) {
	s.Jobs.OnStart(func(j job.Job) {
		found, _, err := s.Store.JobTargets(s.Context(), j.ID, store.JobTargetFilter{})
		if err != nil {
			panic(err)
		}
		for _, t := range found {
			s.DispatchJob(j.ID, t.ClientID)
			text, r := outcome(t.ClientID)
			if text != "" {
				s.Print(j.ID, t.ClientID, release.StreamStdout, text)
				r.StdoutTail = []byte(text)
			}
			if len(r.StderrTail) > 0 {
				s.Print(j.ID, t.ClientID, release.StreamStderr, string(r.StderrTail))
			}
			s.End(j.ID, t.ClientID, r)
		}
		s.EndJob(j.ID)
	})
}

func lastJob(t *testing.T, s *apitest.Server) job.Job {
	t.Helper()
	jobs, _, err := s.Store.Jobs(t.Context(), store.JobFilter{Limit: 1})
	require.NoError(t, err)
	require.Len(t, jobs, 1)
	return jobs[0]
}

func TestCommand(t *testing.T) {
	s := apitest.Start(t)
	s.AddClients(2, nil)
	carry(s, func(client string) (string, release.StepResult) {
		if client == "client-2" {
			return "partly\n", release.StepResult{State: release.StepFailed, ExitCode: 2, Error: "exit code 2", StderrTail: []byte("no such file\n")}
		}
		return "hello é\nno line end", release.StepResult{}
	})
	r := quicCtl(t, s, "command", "client-1", "--timeout", "30s", "--", "ls", "-la", "a b", "it's", "$HOME")
	require.Zero(t, r.code, r.err)
	require.Equal(t, "hello é\nno line end", r.out)
	require.Empty(t, r.err)
	j := lastJob(t, s)
	require.JSONEq(t, `{"command":"ls -la 'a b' 'it'\\''s' '$HOME'"}`, string(j.Command.Payload))
	require.Equal(t, "30s", j.Options.TaskTimeout.String())

	r = quicCtl(t, s, "command", "run", "client-2", "--", "cat x | head -n $N")
	require.Equal(t, exitTaskFailed, r.code)
	require.Equal(t, "partly\n", r.out)
	require.Equal(t, "no such file\n✗ client-2 failed: exit code 2\n", r.err)
	require.JSONEq(t, `{"command":"cat x | head -n $N"}`, string(lastJob(t, s).Command.Payload))

	r = quicCtl(t, s, "command", "client-2", "-o", "json", "--payload", `{"env":{"N":"1"}}`, "--", "x")
	require.Equal(t, exitTaskFailed, r.code)
	info := apiclient.CommandInfo{}
	require.NoError(t, json.Unmarshal([]byte(r.out), &info), r.out)
	require.EqualValues(t, 2, *info.ExitCode)
	require.Equal(t, "no such file\n", info.Stderr)
	require.JSONEq(t, `{"command":"x","env":{"N":"1"}}`, string(lastJob(t, s).Command.Payload))

	carry(s, func(string) (string, release.StepResult) {
		return "", release.StepResult{Result: []byte(`{"cpus":9007199254740993}`)}
	})
	r = quicCtl(t, s, "command", "client-1", "--type", "system.info")
	require.Zero(t, r.code, r.err)
	require.JSONEq(t, `{"cpus":9007199254740993}`, r.out)
	require.Contains(t, r.out, "9007199254740993")

	carry(s, func(string) (string, release.StepResult) {
		return "a log line\n", release.StepResult{Result: []byte(`{"id":"c0ffee"}`)}
	})
	r = quicCtl(t, s, "command", "client-1", "--type", "container.logs", "--payload", `{"container":"shop"}`)
	require.Zero(t, r.code, r.err)
	require.Equal(t, "a log line\n", r.out)
	r = quicCtl(t, s, "batch", "run", "--clients", "client-1", "--type", "container.logs", "--stream")
	require.Contains(t, r.out, "client-1 │ a log line\n")
	require.NotContains(t, r.out, "c0ffee")

	s.Jobs.OnStart(nil)
	r = quicCtl(t, s, "command", "client-1", "--detach", "--", "sleep", "9")
	require.Zero(t, r.code, r.err)
	id := strings.TrimSpace(r.out)
	require.Contains(t, r.err, "quic-ctl command get "+id)
	r = quicCtl(t, s, "command", "get", id)
	require.Contains(t, r.out, `"status": "pending"`)
	r = quicCtl(t, s, "command", "cancel", id, "--reason", "wrong one")
	require.Zero(t, r.code, r.err)
	jobID, _, _ := job.ParseCommandID(id)
	require.Contains(t, s.Jobs.Calls(), "cancel "+jobID+" admin wrong one")
	r = quicCtl(t, s, "command", "list", "--client", "client-2", "--status", "failed")
	require.Equal(t, 3, strings.Count(r.out, "\n"), r.out)
	require.Contains(t, r.out, "exit code 2")
	for _, args := range []string{"command list --type system.info", "command get " + id, "command list --limit 1"} {
		for _, format := range []string{"table", "json"} {
			r := quicCtl(t, s, append(strings.Fields(args), "-o", format)...)
			require.Zero(t, r.code, r.err)
			require.NotEmpty(t, r.out)
		}
	}
}

func TestBatchRun(t *testing.T) {
	s := apitest.Start(t)
	s.AddClients(4, map[string]string{"env": "prod"})
	fails := map[string]bool{}
	carry(s, func(client string) (string, release.StepResult) {
		if fails[client] {
			return "", release.StepResult{State: release.StepFailed, ExitCode: 7, Error: "exit code 7", StderrTail: []byte("no space\n")}
		}
		return "I am " + client + "\n", release.StepResult{}
	})
	r := quicCtl(t, s, "batch", "run", "--selector", "env=prod", "--concurrency", "2", "--retries", "0", "--max-failures", "50%", "--wait", "--", "uptime")
	require.Zero(t, r.code, r.err)
	require.Contains(t, r.out, "✓ completed   4/4 done · 0 failed · took ")
	require.Contains(t, r.err, "4/4 done")
	require.NotContains(t, r.out+r.err, "\x1b", "no colours without a terminal")
	j := lastJob(t, s)
	require.Equal(t, 2, j.Options.Concurrency)
	require.Equal(t, 0, *j.Options.Retries)
	require.Equal(t, "50%", j.Options.MaxFailures.String())

	fails["client-2"], fails["client-3"] = true, true
	list := filepath.Join(t.TempDir(), "hosts")
	require.NoError(t, os.WriteFile(list, []byte("# the web hosts\nclient-2\n\n  client-4 # a comment\n"), 0o600))
	r = quicCtl(t, s, "batch", "run", "--clients", "client-1,client-3", "--clients-from", list, "--stream", "--", "uptime")
	require.Equal(t, exitTaskPartial, r.code, r.err)
	require.Contains(t, r.out, "client-1 │ I am client-1\n")
	require.Contains(t, r.out, "client-2 │ no space\nclient-2 │ ✗ failed: exit code 7\n")
	require.Contains(t, r.out, "! partial   2/4 done · 2 failed")
	require.Contains(t, r.out, "2 failed: exit code 7   client-2, client-3")
	partial := lastJob(t, s).ID
	require.Contains(t, r.err, "quic-ctl batch retry "+partial)
	require.Contains(t, r.err, "quic-ctl batch targets "+partial)

	r = quicCtl(t, s, "batch", "run", "--clients", "client-2", "--stream", "-o", "json", "--", "uptime")
	require.Equal(t, exitTaskFailed, r.code, r.err)
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	require.Len(t, lines, 2)
	require.Contains(t, lines[0], `"type":"result"`)
	require.Contains(t, lines[1], `"failed_count":1`)

	fails = map[string]bool{}
	r = quicCtl(t, s, "batch", "retry", partial, "--wait", "-o", "json")
	require.Zero(t, r.code, r.err)
	var again apiclient.BatchJob
	require.NoError(t, json.Unmarshal([]byte(r.out), &again), r.out)
	require.EqualValues(t, 2, again.Total)

	r = quicCtl(t, s, "batch", "run", "--clients", "client-1,ghost", "--", "uptime")
	require.Equal(t, exitError, r.code)
	require.Contains(t, r.err, "target_clients: ghost is not known")
	r = quicCtl(t, s, "batch", "run", "--clients", "client-1,ghost", "--allow-missing", "--type", "ping")
	require.Zero(t, r.code, r.err)
	require.Contains(t, r.err, "left out, as not known: ghost")
	id := strings.TrimSpace(r.out)
	require.Contains(t, r.err, "quic-ctl batch watch "+id)
	r = quicCtl(t, s, "batch", "watch", id)
	require.Zero(t, r.code, r.err)

	r = quicCtl(t, s, "batch", "logs", partial, "--client", "client-4")
	require.Equal(t, "client-4 │ I am client-4\n", r.out)
	r = quicCtl(t, s, "batch", "logs", "-f", partial)
	require.Equal(t, 4, strings.Count(r.out, "\n"), r.out)
	r = quicCtl(t, s, "batch", "targets", partial, "--state", "failed")
	require.Equal(t, 2, strings.Count(r.out, "exit code 7"), r.out)
	for _, args := range []string{"batch list", "batch list --status partial", "batch get " + partial, "batch targets " + partial, "batch logs " + partial,
		"batch pause " + partial, "batch resume " + partial} {
		for _, format := range []string{"table", "json"} {
			r := quicCtl(t, s, append(strings.Fields(args), "-o", format)...)
			require.Zero(t, r.code, "%s: %s", args, r.err)
			require.NotEmpty(t, r.out, args)
		}
	}
	r = quicCtl(t, s, "batch", "cancel", partial)
	require.Equal(t, exitError, r.code)
	require.Contains(t, r.err, "has ended")
}

func TestWrongCommandLines(t *testing.T) {
	s := apitest.Start(t)
	s.AddClients(1, nil)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"command", "client-1"}, "say what to run"},
		{[]string{"command", "--", "ls"}, "name one host"},
		{[]string{"command", "client-1", "ls"}, "put what to run after --"},
		{[]string{"command", "client-1", "--type", "ping", "--", "ls"}, "is for exec_shell"},
		{[]string{"command", "client-1", "--payload", "[1]", "--", "ls"}, "--payload is not a JSON object"},
		{[]string{"command", "client-1", "--payload", `{"command":"x"}`, "--", "ls"}, "not both"},
		{[]string{"command", "client-1", "--timeout", "0s", "--", "ls"}, "--timeout"},
		{[]string{"command", "client-1", "--timeout", "soon", "--", "ls"}, "--timeout"},
		{[]string{"batch", "run", "--", "ls"}, "say on which hosts"},
		{[]string{"batch", "run", "client-1", "--", "ls"}, `"client-1" stands before --`},
		{[]string{"batch", "run", "--selector", "*"}, "say what to run"},
		{[]string{"batch", "run", "--selector", "*", "--retries", "many", "--", "ls"}, "--retries"},
		{[]string{"batch", "nonsense"}, "no command"},
		{[]string{"batch", "get"}, "arg"},
		{[]string{"broadcast", "--type", "ping"}, "say to whom"},
		{[]string{"broadcast", "--all", "--selector", "*"}, "say to whom"},
		{[]string{"send", "client-1", "--timeout", "-1s"}, "--timeout"},
		{[]string{"send"}, "arg"},
	} {
		r := quicCtl(t, s, c.args...)
		require.Equal(t, exitUsage, r.code, "%v: %s", c.args, r.err)
		require.Contains(t, r.err, c.want, c.args)
		require.Empty(t, r.out, c.args)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"command", "ghost", "--", "ls"}, "client_id: ghost is not known"},
		{[]string{"batch", "run", "--selector", "env=none", "--", "ls"}, "selector: pick no host"},
		{[]string{"batch", "run", "--selector", "*", "--timeout", "9000h", "--", "ls"}, "task_timeout: "},
		{[]string{"batch", "run", "--clients-from", "/nowhere", "--", "ls"}, "/nowhere"},
		{[]string{"batch", "run", "--clients-from", file(t, "a b\n"), "--", "ls"}, ":1: \"a b\": want one id a line"},
		{[]string{"batch", "watch", "nope"}, `job "nope" does not exist`},
		{[]string{"command", "get", "nope"}, `command "nope" does not exist`},
		{[]string{"send", "ghost"}, "client_id: ghost is not known"},
	} {
		r := quicCtl(t, s, c.args...)
		require.Equal(t, exitError, r.code, "%v: %s", c.args, r.err)
		require.Contains(t, r.err, c.want, c.args)
	}
	require.Empty(t, s.Jobs.Calls())
}

// Ctrl-C ends the waiting, and says how to go on.
func TestInterruptedWaitsSayHowToGoOn(t *testing.T) {
	s := apitest.Start(t)
	s.AddClients(1, nil)
	target, err := url.Parse(s.URL)
	require.NoError(t, err)
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"batch", "run", "--selector", "*", "--wait", "--", "sleep 9"}, []string{"The job goes on", "quic-ctl batch watch JOB\n", "quic-ctl batch cancel JOB\n"}},
		{[]string{"batch", "run", "--selector", "*", "--stream", "--", "sleep 9"}, []string{"quic-ctl batch watch JOB\n"}},
		{[]string{"command", "client-1", "--", "sleep 9"}, []string{"The command goes on", "quic-ctl command get JOB.client-1\n", "quic-ctl command cancel JOB.client-1\n"}},
		{[]string{"command", "client-1", "--type", "ping"}, []string{"quic-ctl command get JOB.client-1\n"}},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		// The interruption comes as soon as something is waited for.
		forward := httputil.NewSingleHostReverseProxy(target)
		forward.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/api/batch/jobs/") {
				cancel()
			}
			forward.ServeHTTP(w, r)
		}))
		var out, problems bytes.Buffer
		env := map[string]string{"QUICFLOW_SERVER": proxy.URL, "QUICFLOW_TOKEN": s.Token}
		code := run(ctx, terminal{out: &out, err: &problems}, func(name string) string { return env[name] }, c.args)
		proxy.CloseClientConnections()
		proxy.Close()
		require.Equal(t, exitInterrupted, code, problems.String())
		for _, want := range c.want {
			require.Contains(t, problems.String(), strings.ReplaceAll(want, "JOB", lastJob(t, s).ID))
		}
	}
	for _, call := range s.Jobs.Calls() {
		require.True(t, strings.HasPrefix(call, "start "), call)
	}
}

// Waiting goes on over lost connections; each result comes once.
func TestStreamSurvivesRestarts(t *testing.T) {
	s := apitest.Start(t)
	clients := s.AddClients(60, nil)
	j := s.AddJob(job.Options{}, clients...)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for i, client := range clients {
			s.End(j.ID, client, release.StepResult{StdoutTail: []byte("I am " + client)})
			if i%20 == 10 {
				s.Cut()
			}
		}
		s.EndJob(j.ID)
	}()
	r := quicCtl(t, s, "batch", "watch", j.ID, "--stream")
	<-finished
	require.Zero(t, r.code, r.err)
	for _, client := range clients {
		require.Equal(t, 1, strings.Count(r.out, "│ I am "+client+"\n"), r.out)
	}
}

// What a host wrote must not steer the terminal that shows it.
func TestRawOutputIsSafeOnATerminal(t *testing.T) {
	require.Equal(t, "a�[2Jb\ncd\te", safeLines("a\x1b[2Jb\r\ncd\te"))
	var out bytes.Buffer
	p := rawPrinter{w: &out}
	p.print(apiclient.LogLine{Text: "a\x1b"})
	p.print(apiclient.LogLine{DataBase64: "/wA="})
	p.flush()
	require.Equal(t, "a\x1b\xff\x00", out.String(), "a file gets what was written")
}

func TestSendAndBroadcast(t *testing.T) {
	s := apitest.Start(t)
	s.AddClients(1, nil)
	s.StartAgents(map[string]agent.Handler{"fail": func(context.Context, *quicflowv1.Message) (*quicflowv1.Message, error) {
		return nil, errors.New("cannot")
	}}, "web-1", "web-2")
	r := quicCtl(t, s, "send", "web-1")
	require.Zero(t, r.code, r.err)
	require.Equal(t, "pong \n", r.out)
	r = quicCtl(t, s, "send", "web-1", "--type", "echo", "--payload", `{"n":9007199254740993}`)
	require.Equal(t, "echo {\"n\":9007199254740993}\n", r.out)
	r = quicCtl(t, s, "send", "web-1", "--type", "echo", "--payload", "plain text", "-o", "json")
	require.Contains(t, r.out, `"plain text"`)
	r = quicCtl(t, s, "send", "web-1", "--type", "fail")
	require.Equal(t, exitTaskFailed, r.code)
	require.Contains(t, r.err, "web-1 failed: cannot")
	r = quicCtl(t, s, "send", "client-1", "--no-wait")
	require.Equal(t, exitTaskFailed, r.code)
	require.Contains(t, r.err, "client-1 offline")
	r = quicCtl(t, s, "send", "web-2", "--no-wait")
	require.Equal(t, "sent\n", r.out)
	r = quicCtl(t, s, "broadcast", "--all")
	require.Zero(t, r.code, r.err)
	require.Contains(t, r.out, "2/2 answered")
	r = quicCtl(t, s, "broadcast", "--selector", "*")
	require.Equal(t, exitTaskPartial, r.code)
	require.Contains(t, r.out, "2/3 answered · 1 offline")
	require.Contains(t, r.out, "client-1")
	r = quicCtl(t, s, "broadcast", "--selector", "id=client-*", "-o", "json")
	require.Equal(t, exitTaskFailed, r.code)
	require.Contains(t, r.out, `"offline": 1`)
}

func TestCompletion(t *testing.T) {
	s := apitest.Start(t)
	s.AddClients(2, nil)
	j := s.AddJob(job.Options{}, "client-1")
	for want, args := range map[string][]string{
		"client-2":                   {"command", "cl"},
		"client-1":                   {"send", ""},
		"client-1,client-2":          {"batch", "run", "--clients", "client-1,cl"},
		"system.info":                {"command", "client-1", "--type", ""},
		j.ID + "\trunning, ":         {"batch", "watch", ""},
		"get\tShow a command":        {"command", ""},
		"cancelled":                  {"batch", "list", "--status", ""},
		"--retry-on-failure\tTry":    {"batch", "run", "--retry"},
		"retry\tRun the command of ": {"batch", "ret"},
	} {
		r := quicCtl(t, s, append([]string{"__complete"}, args...)...)
		require.Zero(t, r.code, r.err)
		require.Contains(t, strings.ToLower(r.out), strings.ToLower(want), args)
	}
	r := quicCtlWith(t, map[string]string{"QUICFLOW_SERVER": "http://127.0.0.1:1"}, "__complete", "command", "cl")
	require.Zero(t, r.code)
	require.NotContains(t, r.out, "client")
}
