package executortest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/release"
)

// Fake is a worker that does what its steps tell it: their configuration's variable FAKE is what Do gave. It works for any type.
type Fake struct {
	Of     release.Type
	Unable string // why Probe says that this host cannot do it
}

var _ executor.Worker = Fake{}

// FakeVariable is the variable of a configuration's env that tells a Fake what to do.
const FakeVariable = "FAKE"

// An Op is one thing that a Fake does. One of its fields is set. What has been done is not done again when Work is.
type Op struct {
	Effect  string        `json:"effect,omitempty"`  // adds the step's id to this file, as a line
	Sleep   time.Duration `json:"sleep,omitempty"`   // or until the step is stopped
	Block   bool          `json:"block,omitempty"`   // until the step is stopped
	Linger  time.Duration `json:"linger,omitempty"`  // goes on for so long after the step is stopped
	Await   string        `json:"await,omitempty"`   // until this file is there, or the step is stopped
	Fail    string        `json:"fail,omitempty"`    // with this error
	FailAs  string        `json:"fail_as,omitempty"` // with the value of this variable of env
	Reason  string        `json:"reason,omitempty"`  // reports that what runs is degraded, because of the value of this variable of env
	Unknown bool          `json:"unknown,omitempty"` // ends with executor.ErrUnknown
	Panic   string        `json:"panic,omitempty"`
	Die     int           `json:"die,omitempty"`    // kills the wrapper, so often
	Print   string        `json:"print,omitempty"`  // a line to stdout
	Say     string        `json:"say,omitempty"`    // a line of the system stream
	Script  string        `json:"script,omitempty"` // runs it
	Program []string      `json:"program,omitempty"`
	Health  bool          `json:"health,omitempty"`
	Take    string        `json:"take,omitempty"` // an artifact by its SHA-256, which is printed
	From    string        `json:"from,omitempty"` // URL of what is taken
}

// Do gives the value of FAKE for some operations.
func Do(ops ...Op) string {
	text, err := json.Marshal(ops)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// Type is what it was made for.
func (f Fake) Type() release.Type { return f.Of }

func ops(step *executor.Step) (ops []Op, err error) {
	env, _, _ := step.Config.Common()
	if err := json.Unmarshal([]byte(env[FakeVariable]), &ops); err != nil {
		return nil, release.Invalid("env.FAKE", "%v", err)
	}
	return ops, nil
}

// Check refuses what Do did not give.
func (f Fake) Check(step *executor.Step) error {
	_, err := ops(step)
	return err
}

// Artifacts are those that are taken.
func (f Fake) Artifacts(step *executor.Step) (all []release.Artifact) {
	list, err := ops(step)
	if err != nil {
		return nil
	}
	for _, op := range list {
		if op.Take != "" {
			all = append(all, release.Artifact{Name: "artifact", SHA256: op.Take, URL: op.From})
		}
	}
	return all
}

// Work does what it is told.
func (f Fake) Work(ctx context.Context, run *executor.Run) error {
	list, err := ops(run.Step)
	if err != nil {
		return err
	}
	var done, died int
	if _, err := run.Tools.Kept("done", &done); err != nil {
		return err
	}
	if _, err := run.Tools.Kept("died", &died); err != nil {
		return err
	}
	for n, op := range list {
		if n < done {
			continue
		}
		if op.Die > died {
			if err := run.Tools.Keep("died", died+1); err != nil {
				return err
			}
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		if err := f.do(ctx, run, op, n); err != nil {
			return err
		}
		if err := run.Tools.Keep("done", n+1); err != nil {
			return err
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	running := executor.Running{Project: run.Project, Type: f.Of, State: executor.RunMissing}
	if run.Action != release.StepUninstall {
		running.State, running.Version, running.ConfigID, running.TaskID = executor.RunOK, run.Version, run.ConfigID, run.TaskID
	}
	text, err := json.Marshal(running)
	if err != nil {
		return err
	}
	if err := os.WriteFile(f.path(run.Host, run.Project), text, 0o600); err != nil {
		return err
	}
	run.Tools.Report(running)
	return nil
}

func (f Fake) do(ctx context.Context, run *executor.Run, op Op, n int) error {
	wait := func(c <-chan time.Time) error {
		select {
		case <-c:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	switch {
	case op.Effect != "":
		return effect(op.Effect, run.ID)
	case op.Sleep != 0:
		return wait(time.After(op.Sleep))
	case op.Block:
		return wait(nil)
	case op.Linger != 0:
		<-ctx.Done()
		<-time.After(op.Linger)
		return context.Cause(ctx)
	case op.Await != "":
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		for {
			if _, err := os.Stat(op.Await); err == nil {
				return nil
			}
			if err := wait(ticker.C); err != nil {
				return err
			}
		}
	case op.Fail != "":
		return errors.New(op.Fail)
	case op.FailAs != "":
		return errors.New(run.Tools.Environment(false)[op.FailAs])
	case op.Reason != "":
		run.Tools.Report(executor.Running{Project: run.Project, Type: f.Of, State: executor.RunDegraded, Reason: run.Tools.Environment(false)[op.Reason]})
	case op.Unknown:
		return executor.ErrUnknown
	case op.Panic != "":
		panic(op.Panic)
	case op.Print != "":
		_, err := fmt.Fprintln(run.Tools.Stdout(), op.Print)
		return err
	case op.Say != "":
		run.Tools.Printf("%s", op.Say)
	case op.Script != "":
		return run.Tools.Script(ctx, executor.Script{Name: fmt.Sprint("script-", n), Text: op.Script, Env: run.Tools.Environment(true)})
	case len(op.Program) > 0:
		return run.Tools.Program(ctx, executor.Program{Path: op.Program[0], Args: op.Program[1:]})
	case op.Health:
		return run.Tools.Health(ctx, nil)
	case op.Take != "":
		path, err := run.Tools.Artifact(ctx, op.Take)
		if err != nil {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(run.Tools.Stdout(), file)
		return err
	}
	return nil
}

// effect adds a line to a file, unless it is there.
func effect(path, line string) error {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) || strings.Contains(string(text), line+"\n") {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(file, line)
	return errors.Join(err, file.Close())
}

func (f Fake) path(host executor.Host, project string) string {
	return filepath.Join(host.DataDir, fmt.Sprintf("fake-%s-%s.json", f.Of, project))
}

// Probe tells of a version.
func (f Fake) Probe(context.Context) (executor.Capability, error) {
	if f.Unable != "" {
		return executor.Capability{}, errors.New(f.Unable)
	}
	return executor.Capability{Type: f.Of, Version: "1", Details: map[string]string{"kind": "fake"}}, nil
}

// Logs writes a line for what runs.
func (f Fake) Logs(ctx context.Context, what executor.Deployed, _ executor.LogOptions, out io.Writer) error {
	running, err := f.Describe(ctx, what)
	if err != nil {
		return err
	}
	if running.State != executor.RunOK {
		return release.Unavailable(nil, "nothing runs of project %s", what.Project)
	}
	_, err = fmt.Fprintln(out, "fake", running.Version)
	return err
}

// Describe reads what Work left.
func (f Fake) Describe(_ context.Context, what executor.Deployed) (executor.Running, error) {
	running := executor.Running{Project: what.Project, Type: f.Of, State: executor.RunMissing}
	text, err := os.ReadFile(f.path(what.Host, what.Project))
	if errors.Is(err, os.ErrNotExist) {
		return running, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &running)
	}
	return running, err
}
