package live

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/executor"
	worker "github.com/quicflow/quicflow/agent/executor/container"
	dockerlab "github.com/quicflow/quicflow/internal/lab/docker"
	"github.com/quicflow/quicflow/internal/release"
)

const (
	patience = 30 * time.Second // bounds every step and every wait
	image    = dockerlab.Registry + "/" + dockerlab.App
)

var (
	nextPort  atomic.Int32
	nextStep  atomic.Int32
	nextBuild atomic.Int32
)

// project is a container project on an agent's host.
type project struct {
	t    *testing.T
	name string
	port int
	host string // of the engine; empty: it is gone
	api  *client.Client
	spec release.ContainerSpec // of the project
}

// newProject gives one with a port of its own that all of its versions want. The test ends with none of its containers left.
func newProject(t *testing.T) *project {
	t.Helper()
	p := projectOn(t, lab.Host)
	p.port = 20000 + int(nextPort.Add(1))
	p.spec.Ports = []release.Port{{Container: dockerlab.Port, Host: p.port}}
	return p
}

func projectOn(t *testing.T, host string) *project {
	t.Helper()
	name := fmt.Sprintf("p%d", nextBuild.Add(1))
	api, err := client.New(client.WithHost(host))
	require.NoError(t, err)
	p := &project{t: t, name: name, host: host, api: api, spec: release.ContainerSpec{
		Image: image, StopSignal: "SIGKILL",
		HealthCheck: &release.ContainerHealth{
			Test: dockerlab.Healthy, Interval: release.Duration(400 * time.Millisecond), Timeout: release.Duration(5 * time.Second), Retries: 2,
		},
	}}
	t.Cleanup(func() {
		if p.host != "" {
			p.removeAll()
		}
		api.Close()
	})
	return p
}

func (p *project) removeAll() {
	for _, c := range p.containers() {
		_, err := p.api.ContainerRemove(context.Background(), c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		if err != nil {
			p.t.Logf("remove %s: %v", c.Name, err)
		}
	}
}

// with changes the project's configuration.
func (p *project) with(change func(s *release.ContainerSpec)) *project {
	change(&p.spec)
	return p
}

// beside makes the versions want no port for themselves.
func (p *project) beside() *project {
	return p.with(func(s *release.ContainerSpec) { s.Ports = []release.Port{{Container: dockerlab.Port}} })
}

// step gives a new step to a version, which is the tag of its image, too.
func (p *project) step(action release.StepAction, version string, change ...func(s *release.ContainerSpec)) *executor.Step {
	p.t.Helper()
	spec := p.spec
	for _, c := range change {
		c(&spec)
	}
	own := release.Version{Name: version, Spec: release.Spec{Container: &release.ContainerSpec{ImageTag: version}}}
	if spec.ImageTag != "" {
		own.Container.ImageTag = spec.ImageTag
	}
	merged := release.Merge(release.Project{Name: p.name, Type: release.TypeContainer, Spec: release.Spec{Container: &spec}}, own, release.Override{})
	number := nextStep.Add(1)
	s := &executor.Step{
		ID: fmt.Sprintf("task%d/deploy/host-1/0", number), TaskID: fmt.Sprintf("task%d", number), Action: action, Project: p.name, Version: version,
		Host: executor.Host{ClientID: "host-1", Labels: map[string]string{"rack.row": "r1"}}, Dir: p.t.TempDir(), NotAfter: time.Now().Add(time.Hour),
	}
	config, err := merged.Expand(func(name string) (release.Value, bool) {
		switch name {
		case release.VarProject:
			return release.Value{Text: p.name}, true
		case release.VarTarget:
			return release.Value{Text: "host-1"}, true
		}
		return release.Value{}, false
	}, true)
	require.NoError(p.t, err)
	s.Config = config
	text, err := merged.JSON()
	require.NoError(p.t, err)
	sum := sha256.Sum256(text)
	s.ConfigID = hex.EncodeToString(sum[:8])
	if action == release.StepUninstall {
		s.Version = ""
	}
	return s
}

// work runs a step's work in this process.
func (p *project) work(ctx context.Context, step *executor.Step, again bool) (*tools, error) {
	p.t.Helper()
	tl := &tools{step: step}
	return tl, p.workWith(ctx, step, again, tl)
}

func (p *project) workWith(ctx context.Context, step *executor.Step, again bool, tl *tools) error {
	p.t.Helper()
	err := work(ctx, p.host, step, again, tl)
	p.t.Logf("%s to %s: %v\n%s", step.Action, step.Version, err, indent(logOf(step)))
	return err
}

// work is what a wrapper does around Work.
func work(ctx context.Context, host string, step *executor.Step, again bool, tl *tools) error {
	w := worker.New(worker.Config{Host: host, Patience: 10 * time.Second})
	timeout := min(patience, step.Config.Container.Timeout.Std())
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, &executor.TimedOut{After: timeout})
	defer cancel()
	if !again {
		if err := w.Check(step); err != nil {
			return err
		}
	}
	return w.Work(ctx, &executor.Run{Step: step, Again: again, Tools: tl})
}

func logOf(step *executor.Step) string {
	text, _ := os.ReadFile(filepath.Join(step.Dir, "log"))
	return string(text)
}

func indent(text string) string {
	return "\t" + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n\t")
}

// do runs a step that succeeds, and gives the container that then runs.
func (p *project) do(step *executor.Step) container.InspectResponse {
	p.t.Helper()
	tl, err := p.work(context.Background(), step, false)
	require.NoError(p.t, err)
	if step.Action == release.StepUninstall {
		require.Equal(p.t, executor.RunMissing, tl.report.State)
		return container.InspectResponse{}
	}
	c := p.runs(step.Version)
	require.Equal(p.t, executor.RunOK, tl.report.State, tl.report.Reason)
	require.Equal(p.t, step.Version, tl.report.Version)
	require.Equal(p.t, step.TaskID, tl.report.TaskID)
	require.Equal(p.t, c.ID, tl.report.Details["container_id"])
	return c
}

func (p *project) deploy(version string, change ...func(s *release.ContainerSpec)) container.InspectResponse {
	p.t.Helper()
	return p.do(p.step(release.StepUpdate, version, change...))
}

// fails runs a step that fails, and gives why.
func (p *project) fails(step *executor.Step) string {
	p.t.Helper()
	_, err := p.work(context.Background(), step, false)
	require.Error(p.t, err)
	require.NotContains(p.t, err.Error(), "\n", "one line")
	return err.Error()
}

// containers are all of the project's, whatever their state.
func (p *project) containers() []container.InspectResponse {
	p.t.Helper()
	list, err := p.api.ContainerList(context.Background(), client.ContainerListOptions{
		All: true, Filters: client.Filters{}.Add("label", "quicflow.project="+p.name),
	})
	require.NoError(p.t, err)
	all := make([]container.InspectResponse, len(list.Items))
	for i, c := range list.Items {
		all[i] = p.inspect(c.ID)
	}
	return all
}

func (p *project) inspect(id string) container.InspectResponse {
	p.t.Helper()
	c, err := p.api.ContainerInspect(context.Background(), id, client.ContainerInspectOptions{})
	require.NoError(p.t, err)
	return c.Container
}

// runs checks that exactly one container runs, in its place and of this version; no other is there but those that were kept.
func (p *project) runs(version string) container.InspectResponse {
	p.t.Helper()
	var running []container.InspectResponse
	for _, c := range p.containers() {
		if c.State.Running {
			running = append(running, c)
			continue
		}
		require.Contains(p.t, c.Name, "-old-", "a leftover")
		require.Contains(p.t, []container.RestartPolicyMode{"no", ""}, c.HostConfig.RestartPolicy.Name, "a kept container must not come back with the engine")
	}
	require.Len(p.t, running, 1)
	c := running[0]
	require.Equal(p.t, "/"+c.Config.Labels["quicflow.name"], c.Name)
	require.Equal(p.t, version, c.Config.Labels["quicflow.version"])
	want := p.spec.Restart
	if want == nil {
		require.EqualValues(p.t, "unless-stopped", c.HostConfig.RestartPolicy.Name)
	} else {
		require.EqualValues(p.t, want.Name, c.HostConfig.RestartPolicy.Name)
	}
	if p.port > 0 && strings.HasPrefix(version, "v") && len(p.spec.Ports) > 0 && p.spec.Ports[0].Host > 0 {
		require.Equal(p.t, version, p.get())
	}
	return c
}

// get asks the project's port until it answers.
func (p *project) get() (text string) {
	p.t.Helper()
	p.await(func() (err error) {
		text, err = lab.Get(context.Background(), p.port, "/")
		return err
	})
	return text
}

// await waits for a condition.
func (p *project) await(f func() error) {
	p.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			p.t.Fatalf("after %s: %v", patience, err)
		}
	}
}

// The child: the test's binary as a wrapper that dies.
const childVariable = "QUICFLOW_TEST_CONTAINER"

type childJob struct {
	Host  string
	Step  *executor.Step
	Dir   string // the step's, which is not in its JSON
	Again bool
}

func child() int {
	var job childJob
	if err := json.Unmarshal([]byte(os.Getenv(childVariable)), &job); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	job.Step.Dir = job.Dir
	if err := work(context.Background(), job.Host, job.Step, job.Again, &tools{step: job.Step}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

var errKilled = errors.New("killed")

// inChild runs a step's work in a process that dies at a failpoint, or lives.
func (p *project) inChild(step *executor.Step, again bool, failpoint string) error {
	p.t.Helper()
	text, err := json.Marshal(childJob{p.host, step, step.Dir, again})
	require.NoError(p.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+string(text), "QUICFLOW_FAILPOINT="+failpoint)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			require.NoError(p.t, ctx.Err(), "the child hung")
			return errKilled
		}
		return errors.New(strings.TrimSpace(string(out)))
	}
	require.NoError(p.t, err)
	return nil
}
