package live

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/executor"
	dockerlab "github.com/quicflow/quicflow/internal/lab/docker"
	"github.com/quicflow/quicflow/internal/release"
)

// One port, so the old container stops before the new one starts.
func TestLifeAfter(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	first := p.do(p.step(release.StepInstall, "v1"))

	p.deploy("v2")
	require.False(t, p.inspect(first.ID).State.Running, "kept, and stopped")
	require.True(t, strings.HasPrefix(p.inspect(first.ID).Name, "/"+p.name+"-old-v1-"))

	second := p.runs("v2")
	why := p.fails(p.step(release.StepUpdate, "sick"))
	require.Contains(t, why, "unhealthy")
	require.Contains(t, why, "404")
	require.Equal(t, second.ID, p.runs("v2").ID, "the same container, not a copy")
	require.Len(t, p.containers(), 2)

	back := p.do(p.step(release.StepRollbackTo, "v1"))
	require.Equal(t, first.ID, back.ID, "the one that was kept")
	require.False(t, p.inspect(second.ID).State.Running)

	p.do(p.step(release.StepUninstall, ""))
	require.Empty(t, p.containers())
}

// No port of their own, so there is always one that answers.
func TestLifeBeside(t *testing.T) {
	t.Parallel()
	p := newProject(t).beside()
	p.do(p.step(release.StepInstall, "v1"))
	stop := p.watch()
	p.deploy("v2")
	second := p.runs("v2")
	require.Contains(t, p.fails(p.step(release.StepUpdate, "sick")), "unhealthy")
	require.Equal(t, second.ID, p.runs("v2").ID)
	require.Equal(t, second.State.StartedAt, p.runs("v2").State.StartedAt, "it was never stopped")
	p.do(p.step(release.StepRollbackTo, "v1"))
	p.deploy("v3")
	answers, misses := stop()
	require.Empty(t, misses, "of %d", answers)
	require.Greater(t, answers, 10)
	p.do(p.step(release.StepUninstall, ""))
	require.Empty(t, p.containers())
}

// watch asks the project's containers again and again; a moment in which none answers is a miss.
func (p *project) watch() (stop func() (answers int, misses []string)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	answers, misses := 0, []string(nil)
	ask := func() bool {
		list, err := p.api.ContainerList(ctx, client.ContainerListOptions{Filters: client.Filters{}.Add("label", "quicflow.project="+p.name)})
		if err != nil {
			return false
		}
		for _, c := range list.Items {
			for _, port := range c.Ports {
				if _, err := lab.Get(ctx, int(port.PublicPort), "/"); err == nil {
					return true
				}
			}
		}
		return false
	}
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			answered := ask()
			if !answered { // what was listed may be replaced before it is asked; then the next list has its successor
				answered = ask()
			}
			if answered {
				answers++
			} else if ctx.Err() == nil {
				misses = append(misses, time.Now().Format(time.StampMilli))
			}
		}
	}()
	p.t.Cleanup(func() { cancel(); <-done })
	return func() (int, []string) {
		cancel()
		<-done
		return answers, misses
	}
}

func TestRollbackWithoutKeptContainer(t *testing.T) {
	t.Parallel()
	none := 0
	p := newProject(t).with(func(s *release.ContainerSpec) { s.KeepOld = &none })
	first := p.deploy("v1")
	p.deploy("v2")
	require.Len(t, p.containers(), 1)
	require.NotEqual(t, first.ID, p.do(p.step(release.StepRollbackTo, "v1")).ID)
}

func TestRollbackOfAnotherConfiguration(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	first := p.deploy("v1")
	p.deploy("v2")
	again := p.do(p.step(release.StepRollbackTo, "v1", func(s *release.ContainerSpec) { s.Env = map[string]string{"A": "1"} }))
	require.NotEqual(t, first.ID, again.ID, "what was kept is not what is wanted")
	require.Contains(t, again.Config.Env, "A=1")
}

func TestRollbackToUnhealthyContainer(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	first := p.deploy("v1")
	second := p.deploy("v2")
	kept := p.inspect(first.ID).Name
	step := p.step(release.StepRollbackTo, "v1", func(s *release.ContainerSpec) {})
	step.Config.Container.PostScript = "exit 4"
	require.Equal(t, "post_script: exit code 4", p.fails(step))
	require.Equal(t, second.ID, p.runs("v2").ID)
	require.Equal(t, kept, p.inspect(first.ID).Name, "it is still there for the next attempt")
}

func TestRedeploy(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	first := p.deploy("v1")
	require.NotEqual(t, first.ID, p.deploy("v1").ID)
}

func TestKeepOld(t *testing.T) {
	t.Parallel()
	two := 2
	p := newProject(t).beside().with(func(s *release.ContainerSpec) { s.KeepOld = &two })
	var ids []string
	for _, v := range []string{"v1", "v2", "v3", "v1"} {
		ids = append(ids, p.deploy(v).ID)
	}
	require.Len(t, p.containers(), 3)
	for _, c := range p.containers() {
		require.NotEqual(t, ids[0], c.ID, "the oldest went")
	}
}

func TestRename(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.deploy("v1")
	p.deploy("v2", func(s *release.ContainerSpec) { s.Name = p.name + "-other" })
	require.Equal(t, "/"+p.name+"-other", p.runs("v2").Name)
}

func TestScripts(t *testing.T) {
	t.Parallel()
	p := newProject(t).with(func(s *release.ContainerSpec) {
		s.PreScript = `echo "pre $QUICFLOW_VERSION"`
		s.PostScript = `echo "post $QUICFLOW_CONTAINER_NAME $QUICFLOW_PORT_8080 $A"`
		s.Env = map[string]string{"A": "a b"}
	})
	step := p.step(release.StepInstall, "v1")
	p.do(step)
	require.Equal(t, fmt.Sprintf("pre v1\npost %s %d a b\n", p.temporary(step), p.port), read(step, "stdout"))

	first := p.runs("v1")
	step = p.step(release.StepUpdate, "v2", func(s *release.ContainerSpec) { s.PreScript = "exit 7" })
	require.Equal(t, "pre_script: exit code 7", p.fails(step))
	require.Equal(t, first.State.StartedAt, p.runs("v1").State.StartedAt, "nothing was touched")

	step = p.step(release.StepUpdate, "v2", func(s *release.ContainerSpec) { s.PostScript = "exit 8" })
	require.Equal(t, "post_script: exit code 8", p.fails(step))
	require.Equal(t, first.ID, p.runs("v1").ID)
}

func TestAgentsHealthCheck(t *testing.T) {
	t.Parallel()
	check := func(path string) func(s *release.ContainerSpec) {
		return func(s *release.ContainerSpec) {
			s.Health = &release.Health{HTTP: "http://" + lab.Address + ":${QUICFLOW_PORT_8080}" + path, Interval: release.Duration(50 * time.Millisecond)}
		}
	}
	p := newProject(t).beside()
	first := p.deploy("v1", check("/"))
	require.Equal(t, "health check: 404 Not Found", p.fails(p.step(release.StepUpdate, "v2", check("/missing"))))
	require.Equal(t, first.ID, p.runs("v1").ID)
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	for name, beside := range map[string]bool{"beside": true, "after": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProject(t)
			if beside {
				p.beside()
			}
			first := p.deploy("v1")
			ctx, cancel := context.WithCancelCause(context.Background())
			step := p.step(release.StepUpdate, "v2", func(s *release.ContainerSpec) { s.HealthCheck = never })
			tl := &tools{step: step, onLine: func(line string) {
				if strings.HasPrefix(line, "waiting for the health check") {
					cancel(&executor.Cancelled{Reason: "enough"})
				}
			}}
			err := p.workWith(ctx, step, false, tl)
			require.Equal(t, &executor.Cancelled{Reason: "enough"}, err)
			require.Equal(t, first.ID, p.runs("v1").ID)
			require.Len(t, p.containers(), 1)
		})
	}
}

// never is a check that neither passes nor fails for a long time.
var never = &release.ContainerHealth{Test: []string{"/bin/busybox", "false"}, Interval: release.Duration(time.Second), Retries: 1000}

func TestTimeout(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	first := p.deploy("v1")
	step := p.step(release.StepUpdate, "v2", func(s *release.ContainerSpec) { s.HealthCheck, s.Timeout = never, release.Duration(2*time.Second) })
	require.Equal(t, "timed out after 2s", p.fails(step))
	require.Equal(t, first.ID, p.runs("v1").ID)
}

func TestWithoutHealthCheck(t *testing.T) {
	t.Parallel()
	p := newProject(t).with(func(s *release.ContainerSpec) {
		s.HealthCheck, s.Settle = nil, release.Duration(700*time.Millisecond)
	})
	begun := time.Now()
	first := p.deploy("v1")
	require.GreaterOrEqual(t, time.Since(begun), 700*time.Millisecond)
	why := p.fails(p.step(release.StepUpdate, "crash"))
	require.Equal(t, "the container ended 3 times, at last with exit code 3: the database is missing", why)
	require.Equal(t, first.ID, p.runs("v1").ID)
	step := p.step(release.StepUpdate, "crash", func(s *release.ContainerSpec) { s.Restart = &release.RestartPolicy{Name: "no"} })
	require.Equal(t, "the container ended with exit code 3: the database is missing", p.fails(step))
	require.Contains(t, read(step, "stderr"), "the database is missing")
	p.runs("v1")
}

// ownLab gives a lab whose engine may be stopped.
func ownLab(t *testing.T, o dockerlab.Options) *dockerlab.Lab {
	t.Helper()
	o.Images = lab
	l, err := dockerlab.Start(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

// A policy of always would start a container that was only stopped when the engine starts.
func TestKeptContainersStayDown(t *testing.T) {
	t.Parallel()
	own := ownLab(t, dockerlab.Options{})
	p := projectOn(t, own.Host).with(func(s *release.ContainerSpec) {
		s.Restart, s.Update = &release.RestartPolicy{Name: "always"}, "after"
	})
	first := p.deploy("v1")
	second := p.deploy("v2")
	require.NoError(t, own.StopEngine())
	require.NoError(t, own.StartEngine(t.Context()))
	p.await(func() error {
		if c := p.inspect(second.ID); !c.State.Running {
			return fmt.Errorf("the current container is %s", c.State.Status)
		}
		return nil
	})
	p.runs("v2")
	require.Equal(t, first.ID, p.do(p.step(release.StepRollbackTo, "v1")).ID)
}

// The engine is upgraded while a step waits.
func TestEngineGoesAway(t *testing.T) {
	t.Parallel()
	own := ownLab(t, dockerlab.Options{})
	p := projectOn(t, own.Host).with(func(s *release.ContainerSpec) { s.Update = "after" })
	first := p.deploy("v1")
	step := p.step(release.StepUpdate, "v2", func(s *release.ContainerSpec) { s.HealthCheck, s.Timeout = never, release.Duration(8*time.Second) })
	var once atomic.Bool
	restarted := make(chan error, 1)
	tl := &tools{step: step, onLine: func(line string) {
		if strings.HasPrefix(line, "waiting for the health check") && !once.Swap(true) {
			go func() {
				err := own.StopEngine()
				if err == nil {
					err = own.StartEngine(context.Background())
				}
				restarted <- err
			}()
		}
	}}
	err := p.workWith(context.Background(), step, false, tl)
	require.NoError(t, <-restarted)
	require.Error(t, err)
	require.NotContains(t, err.Error(), "does not run again")
	require.Equal(t, first.ID, p.runs("v1").ID)
}
