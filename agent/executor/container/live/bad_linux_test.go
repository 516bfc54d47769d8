package live

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/executor"
	dockerlab "github.com/quicflow/quicflow/internal/lab/docker"
	"github.com/quicflow/quicflow/internal/release"
)

// foreign starts a container that QuicFlow knows nothing of; port 0 is none.
func (p *project) foreign(name string, port int) string {
	p.t.Helper()
	pulled, err := p.api.ImagePull(context.Background(), image+":v1", client.ImagePullOptions{})
	require.NoError(p.t, err)
	require.NoError(p.t, pulled.Wait(context.Background()))
	host, config := &container.HostConfig{}, &container.Config{Image: image + ":v1"}
	if port > 0 {
		inner := network.MustParsePort("8080/tcp")
		config.ExposedPorts = network.PortSet{inner: {}}
		host.PortBindings = network.PortMap{inner: {{HostPort: strconv.Itoa(port)}}}
	}
	made, err := p.api.ContainerCreate(context.Background(), client.ContainerCreateOptions{
		Name: name, HostConfig: host, Config: config,
	})
	require.NoError(p.t, err)
	p.t.Cleanup(func() {
		_, err := p.api.ContainerRemove(context.Background(), made.ID, client.ContainerRemoveOptions{Force: true})
		require.NoError(p.t, err, "it was not QuicFlow's to remove")
	})
	_, err = p.api.ContainerStart(context.Background(), made.ID, client.ContainerStartOptions{})
	require.NoError(p.t, err)
	return made.ID
}

// Each of these fails with its reason in one line, and what ran before still runs, untouched.
func TestBadImages(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	first := p.deploy("v1")
	for want, change := range map[string]func(s *release.ContainerSpec){
		"image 127.0.0.1:5000/team/app:v9: not found": func(s *release.ContainerSpec) { s.ImageTag = "v9" },
		"image 127.0.0.1:5000/team/nothing:v2: not found": func(s *release.ContainerSpec) {
			s.Image = dockerlab.Registry + "/team/nothing"
		},
		"image 127.0.0.1:5999/team/app:v2: the registry cannot be reached: connection refused": func(s *release.ContainerSpec) {
			s.Image = "127.0.0.1:5999/team/app"
		},
		"image 127.0.0.1:5000/team/app:v2: not there for this platform, only for linux/amd64": func(s *release.ContainerSpec) { s.Platform = "linux/arm64" },
		"image 127.0.0.1:5001/team/app:v2: the registry wants a login": func(s *release.ContainerSpec) {
			s.Image = dockerlab.AuthRegistry + "/team/app"
		},
		"image 127.0.0.1:5001/team/app:v2: the registry refused the login": func(s *release.ContainerSpec) {
			s.Image, s.Registry = dockerlab.AuthRegistry+"/team/app", &release.RegistryAuth{Username: dockerlab.User, Password: "wrong"}
		},
	} {
		step := p.step(release.StepUpdate, "v2", change)
		require.Equal(t, want, p.fails(step))
		if !strings.Contains(want, "platform") { // the engine itself says nothing of that
			require.Contains(t, logOf(step), "the Docker engine says: ")
		}
		require.NotContains(t, logOf(step), "wrong", "the password")
		require.Equal(t, first.State.StartedAt, p.runs("v1").State.StartedAt)
	}
}

func TestRegistryLogin(t *testing.T) {
	t.Parallel()
	p := newProject(t).with(func(s *release.ContainerSpec) {
		s.Image = dockerlab.AuthRegistry + "/team/app"
		s.Registry = &release.RegistryAuth{Username: dockerlab.User, Password: dockerlab.Password}
	})
	p.deploy("v1")
	p.deploy("v2", func(s *release.ContainerSpec) {
		s.Registry = &release.RegistryAuth{Server: "http://" + dockerlab.AuthRegistry + "/v2/", Username: dockerlab.User, Password: dockerlab.Password}
	})
	why := p.fails(p.step(release.StepUpdate, "v3", func(s *release.ContainerSpec) {
		s.Registry = &release.RegistryAuth{Server: "registry.example.com", Username: dockerlab.User, Password: dockerlab.Password}
	}))
	require.Equal(t, "container.registry.server: the login is for registry.example.com, but the image is of 127.0.0.1:5001", why)
}

func TestPullPolicy(t *testing.T) {
	t.Parallel()
	own := dockerlab.App + "-" + strings.ToLower(t.Name())
	push := func(text string) {
		require.NoError(t, lab.Push(t.Context(), own+":v1", map[string]string{"www/index.html": text},
			`CMD ["/bin/busybox","httpd","-f","-p","8080","-h","/www"]`))
	}
	p := newProject(t)
	policy := func(name string) func(s *release.ContainerSpec) {
		return func(s *release.ContainerSpec) { s.Image, s.PullPolicy = dockerlab.Registry+"/"+own, name }
	}
	require.Equal(t, "image 127.0.0.1:5000/"+own+":v1: not on this host, and pull_policy is never", p.fails(p.step(release.StepInstall, "v1", policy("never"))))
	push("one")
	deploy := func(name string) string {
		_, err := p.work(t.Context(), p.step(release.StepUpdate, "v1", policy(name)), false)
		require.NoError(t, err)
		return p.get()
	}
	require.Equal(t, "one", deploy("missing"))
	// The engine keeps its own, whatever the tag now stands for. Pushing takes the tag away from it, so it gets it back.
	old := p.containers()[0].Image
	push("two")
	_, err := p.api.ImageTag(t.Context(), client.ImageTagOptions{Source: old, Target: dockerlab.Registry + "/" + own + ":v1"})
	require.NoError(t, err)
	require.Equal(t, "one", deploy("missing"))
	require.Equal(t, "one", deploy("never"))
	require.Equal(t, "two", deploy(""), "always is the default")

	image, err := p.api.ImageInspect(t.Context(), dockerlab.Registry+"/"+own+":v1")
	require.NoError(t, err)
	_, digest, _ := strings.Cut(image.RepoDigests[0], "@")
	byDigest := p.step(release.StepUpdate, "v1", policy(""), func(s *release.ContainerSpec) { s.ImageTag = digest })
	_, err = p.work(t.Context(), byDigest, false)
	require.NoError(t, err)
	require.NotContains(t, logOf(byDigest), "pulling", "what a digest names never changes")
	require.Equal(t, "two", p.get())
}

func TestPortTaken(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	first := p.deploy("v1")
	other := newProject(t)
	p.foreign(p.name+"-foreign", other.port)
	taken := func(s *release.ContainerSpec) { s.Ports = []release.Port{{Container: 8080, Host: other.port}} }
	want := fmt.Sprintf("port %d is taken by container %s-foreign", other.port, p.name)
	require.Equal(t, want, p.fails(p.step(release.StepUpdate, "v2", taken)))
	require.Equal(t, want, p.fails(p.step(release.StepUpdate, "v2", taken, func(s *release.ContainerSpec) { s.Update = "after" })))
	// The first one that is taken of many.
	free := newProject(t).port
	require.Equal(t, want, p.fails(p.step(release.StepUpdate, "v2", func(s *release.ContainerSpec) {
		s.Ports = []release.Port{{Container: 8080, Host: free}, {Container: 8081}, {Container: 8082, Host: other.port}}
	})))
	require.Equal(t, first.State.StartedAt, p.runs("v1").State.StartedAt, "it was not even stopped")

	other = newProject(t)
	require.NoError(t, lab.Listen(t.Context(), other.port))
	require.Equal(t, fmt.Sprintf("port %d is taken by a program of this host", other.port), p.fails(p.step(release.StepUpdate, "v2", taken)))
	require.Equal(t, first.ID, p.runs("v1").ID)
}

func TestUpdateModes(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.deploy("v1")
	why := p.fails(p.step(release.StepUpdate, "v2", func(s *release.ContainerSpec) { s.Update = "beside" }))
	require.Equal(t, fmt.Sprintf("the new container cannot start beside the old one: both want port %d/tcp; set update to after", p.port), why)

	p = newProject(t).beside()
	p.deploy("v1")
	step := p.step(release.StepUpdate, "v2", func(s *release.ContainerSpec) { s.Update = "after" })
	p.do(step)
	require.Contains(t, logOf(step), "stops before the new one starts, as the project wants")
	step = p.step(release.StepUpdate, "v3", func(s *release.ContainerSpec) { s.Update = "auto" })
	p.do(step)
	require.Contains(t, logOf(step), "runs until the new one is healthy")
}

// What cannot be had twice makes the update one after the other.
func TestClashes(t *testing.T) {
	t.Parallel()
	p := newProject(t).with(func(s *release.ContainerSpec) { s.Ports, s.Network = nil, "host" })
	p.with(func(s *release.ContainerSpec) {
		s.HealthCheck = &release.ContainerHealth{Shell: "busybox true", Interval: release.Duration(300 * time.Millisecond)}
		s.Command = []string{"sleep", "1000"}
	})
	p.port = 0
	p.deploy("v1")
	step := p.step(release.StepUpdate, "v2")
	p.do(step)
	require.Contains(t, logOf(step), "both want the host's network")

	p = newProject(t).beside()
	makeNetwork(t, p, p.name+"-net", "10.98.0.0/24")
	p.with(func(s *release.ContainerSpec) {
		s.Networks = []release.ContainerNetwork{{Name: p.name + "-net", IPv4: "10.98.0.9"}}
	})
	p.deploy("v1")
	step = p.step(release.StepUpdate, "v2")
	p.do(step)
	require.Contains(t, logOf(step), "both want address 10.98.0.9 of network "+p.name+"-net")
}

func TestNameTaken(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	id := p.foreign(p.name, 0)
	why := p.fails(p.step(release.StepInstall, "v1"))
	require.Equal(t, fmt.Sprintf("the name %s is taken by a container that QuicFlow did not make (%s)", p.name, id[:12]), why)
	require.True(t, p.inspect(id).State.Running)
	require.Empty(t, p.containers())

	p = newProject(t)
	p.deploy("v1")
	other := newProject(t)
	why = other.fails(other.step(release.StepInstall, "v1", func(s *release.ContainerSpec) { s.Name = p.name }))
	require.Equal(t, fmt.Sprintf("the name %s is taken by a container of project %s", p.name, p.name), why)
	step := p.step(release.StepInstall, "v1")
	step.Host.ClientID = "host-2"
	require.Equal(t, fmt.Sprintf("the name %s is taken by a container of agent host-1, which shares this Docker engine", p.name), p.fails(step))
	p.runs("v1")
	uninstall := p.step(release.StepUninstall, "")
	uninstall.Host.ClientID = "host-2"
	_, err := p.work(t.Context(), uninstall, false)
	require.NoError(t, err)
	p.runs("v1")

	// Someone takes the name at the last moment.
	p = newProject(t)
	first := p.deploy("v1", func(s *release.ContainerSpec) { s.Name = p.name + "-a" })
	step = p.step(release.StepUpdate, "v2")
	tl := &tools{step: step, onLine: func(line string) {
		if strings.HasSuffix(line, "is healthy") {
			p.foreign(p.name, 0)
		}
	}}
	require.ErrorContains(t, p.workWith(t.Context(), step, false, tl), "the name "+p.name+" is taken by a container that QuicFlow did not make")
	require.Equal(t, first.ID, p.runs("v1").ID)
	require.Equal(t, "/"+p.name+"-a", p.runs("v1").Name)
}

func TestShellMetacharacters(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	canary := filepath.Join(t.TempDir(), "canary")
	evil := "x; touch " + canary + " $(touch " + canary + ") `touch " + canary + "`"
	for want, change := range map[string]func(s *release.ContainerSpec){
		"container.name: ":            func(s *release.ContainerSpec) { s.Name = evil },
		"container.image: ":           func(s *release.ContainerSpec) { s.Image = "team/app;reboot" },
		"container.image_tag: ":       func(s *release.ContainerSpec) { s.ImageTag = evil },
		"container.networks[0].name":  func(s *release.ContainerSpec) { s.Networks = []release.ContainerNetwork{{Name: "a:b"}} },
		"container.volumes[0].target": func(s *release.ContainerSpec) { s.Volumes = []release.Volume{{Target: "../etc"}} },
	} {
		err := p.worker().Check(p.step(release.StepInstall, "v1", change))
		require.ErrorIs(t, err, release.ErrInvalid, want)
		require.ErrorContains(t, err, want)
	}
	// Where any text may stand, it is only text.
	c := p.deploy("v1", func(s *release.ContainerSpec) {
		s.Env = map[string]string{"A": evil}
		s.Labels = map[string]string{"a": evil}
	})
	require.Contains(t, c.Config.Env, "A="+evil)
	require.Equal(t, evil, c.Config.Labels["a"])
	require.NoFileExists(t, canary)
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	own := ownLab(t, dockerlab.Options{DiskBytes: 24 << 20})
	noise := make([]byte, 16<<20) // and a third more as text
	_, err := rand.Read(noise)
	require.NoError(t, err)
	require.NoError(t, lab.Push(t.Context(), dockerlab.App+":large", map[string]string{"noise": base64.StdEncoding.EncodeToString(noise)},
		`CMD ["/bin/busybox","httpd","-f","-p","8080","-h","/www"]`))
	p := projectOn(t, own.Host)
	first := p.deploy("v1")
	step := p.step(release.StepUpdate, "large")
	require.Equal(t, "image 127.0.0.1:5000/team/app:large: the disk of the Docker engine is full", p.fails(step))
	require.Contains(t, logOf(step), "no space left on device")
	require.Equal(t, first.State.StartedAt, p.runs("v1").State.StartedAt)
}

func TestInterpreter(t *testing.T) {
	t.Parallel()
	p := newProject(t).with(func(s *release.ContainerSpec) {
		s.Interpreter, s.PreScript = "/bin/sh -e", "false; echo reached"
	})
	step := p.step(release.StepInstall, "v1")
	require.Equal(t, "pre_script: exit code 1", p.fails(step))
	require.Empty(t, read(step, "stdout"))
}

func TestVolumes(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	named := p.name + "-data"
	dir := filepath.Join(t.TempDir(), "made")
	p.with(func(s *release.ContainerSpec) {
		s.Volumes = []release.Volume{
			{Source: dir, Target: "/made", Create: true},
			{Source: named, Target: "/www", NoCopy: true},
			{Target: "/anonymous"},
		}
		s.HealthCheck = &release.ContainerHealth{Shell: "busybox true", Interval: release.Duration(300 * time.Millisecond)}
	})
	p.port = 0
	c := p.deploy("v1")
	require.DirExists(t, dir)
	_, err := lab.Get(t.Context(), p.spec.Ports[0].Host, "/index.html")
	require.ErrorContains(t, err, "404", "nothing of the image was copied")
	var anonymous string
	for _, m := range c.Mounts {
		if m.Destination == "/anonymous" {
			anonymous = m.Name
		}
	}
	require.Len(t, anonymous, 64)
	_, err = p.api.VolumeInspect(t.Context(), anonymous, client.VolumeInspectOptions{})
	require.NoError(t, err)
	require.Contains(t, p.fails(p.step(release.StepUpdate, "v2", func(s *release.ContainerSpec) {
		s.Volumes = []release.Volume{{Source: "/no/such/path", Target: "/x"}}
	})), "/no/such/path")
	p.runs("v1")

	other := p.foreign(p.name+"-foreign", 0)
	p.do(p.step(release.StepUninstall, ""))
	require.Empty(t, p.containers())
	_, err = p.api.VolumeInspect(t.Context(), anonymous, client.VolumeInspectOptions{})
	require.Error(t, err, "it went with its container")
	_, err = p.api.VolumeRemove(t.Context(), named, client.VolumeRemoveOptions{})
	require.NoError(t, err, "it was kept")
	require.DirExists(t, dir)
	require.True(t, p.inspect(other).State.Running)
	_, err = p.api.ImageInspect(t.Context(), image+":v1")
	require.NoError(t, err, "images stay")
}

func TestUninstallCancelled(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	c := p.deploy("v1")
	ctx, cancel := context.WithCancelCause(context.Background())
	step := p.step(release.StepUninstall, "")
	tl := &tools{step: step, onLine: func(string) { cancel(&executor.Cancelled{}) }}
	require.Equal(t, &executor.Cancelled{}, p.workWith(ctx, step, false, tl))
	require.Equal(t, c.ID, p.runs("v1").ID)
}

func TestUninstallOfNothing(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.do(p.step(release.StepUninstall, ""))
}

// A step whose agent lost all it knew never comes back: the next one finds its container.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.deploy("v1")
	lostStep := p.step(release.StepUpdate, "v2")
	require.Equal(t, errKilled, p.inChild(lostStep, false, "container.started"))
	require.NoError(t, os.RemoveAll(lostStep.Dir))
	p.deploy("v3")

	p = newProject(t).beside()
	p.deploy("v1")
	lostStep = p.step(release.StepUpdate, "v2")
	require.Equal(t, errKilled, p.inChild(lostStep, false, "container.started"))
	p.deploy("v3")
	require.Len(t, p.containers(), 2)

	// The old one has the name of a kept one already, and still runs.
	lostStep = p.step(release.StepUpdate, "v2")
	require.Equal(t, errKilled, p.inChild(lostStep, false, "container.renamed"))
	p.deploy("v3")
	p.do(p.step(release.StepUninstall, ""))
	require.Empty(t, p.containers())
}
