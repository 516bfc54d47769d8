package container

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/release"
)

func sample() *release.ContainerSpec {
	return &release.ContainerSpec{Image: "registry.example.com/team/app", ImageTag: "1.2", Name: "web"}
}

func TestBuildRefuses(t *testing.T) {
	t.Parallel()
	_, err := build(sample(), identity{}, nil)
	require.NoError(t, err)
	for want, change := range map[string]func(s *release.ContainerSpec){
		"container.image: ":             func(s *release.ContainerSpec) { s.Image = "team/app:1.2" },
		"container.image_tag: ":         func(s *release.ContainerSpec) { s.ImageTag = "" },
		"container.platform: ":          func(s *release.ContainerSpec) { s.Platform = "arm64" },
		"container.name: ":              func(s *release.ContainerSpec) { s.Name = "a b" },
		"container.labels: ":            func(s *release.ContainerSpec) { s.Labels = map[string]string{"quicflow.project": "other"} },
		"container.work_dir: ":          func(s *release.ContainerSpec) { s.WorkDir = "tmp" },
		"container.restart: ":           func(s *release.ContainerSpec) { s.Restart = &release.RestartPolicy{Name: "always", MaxRetries: 3} },
		"container.ports: ":             func(s *release.ContainerSpec) { s.Network, s.Ports = "host", []release.Port{{Container: 80}} },
		"container.ports[0]: ":          func(s *release.ContainerSpec) { s.Ports = []release.Port{{Container: 70000}} },
		"container.ports[0].protocol: ": func(s *release.ContainerSpec) { s.Ports = []release.Port{{Container: 80, Protocol: "icmp"}} },
		"container.ports[0].host_ip: ":  func(s *release.ContainerSpec) { s.Ports = []release.Port{{Container: 80, HostIP: "localhost"}} },
		"container.networks: ": func(s *release.ContainerSpec) {
			s.Network, s.Networks = "host", []release.ContainerNetwork{{Name: "a"}}
		},
		"container.networks[0].name: ": func(s *release.ContainerSpec) { s.Networks = []release.ContainerNetwork{{Name: "host"}} },
		"container.networks[1].name: ": func(s *release.ContainerSpec) { s.Networks = []release.ContainerNetwork{{Name: "a"}, {Name: "a"}} },
		"container.networks[0].ipv6: ": func(s *release.ContainerSpec) { s.Networks = []release.ContainerNetwork{{Name: "a", IPv6: "10.0.0.1"}} },
		"container.dns[0]: ":           func(s *release.ContainerSpec) { s.DNS = []string{"ns.example.com"} },
		"container.extra_hosts: ":      func(s *release.ContainerSpec) { s.ExtraHosts = map[string]string{"db": "db.example.com"} },
		"container.volumes[0].source: ": func(s *release.ContainerSpec) {
			s.Volumes = []release.Volume{{Type: "bind", Source: "data", Target: "/d"}}
		},
		"container.volumes[0].propagation: ": func(s *release.ContainerSpec) { s.Volumes = []release.Volume{{Target: "/d", Propagation: "shared"}} },
		"container.volumes[0].no_copy: ": func(s *release.ContainerSpec) {
			s.Volumes = []release.Volume{{Source: "/s", Target: "/d", NoCopy: true}}
		},
		"container.volumes[0].create: ": func(s *release.ContainerSpec) {
			s.Volumes = []release.Volume{{Source: "s", Target: "/d", Create: true}}
		},
		"container.volumes[0].type: ":                 func(s *release.ContainerSpec) { s.Volumes = []release.Volume{{Type: "nfs", Target: "/d"}} },
		"container.tmpfs: ":                           func(s *release.ContainerSpec) { s.Tmpfs = map[string]string{"tmp": ""} },
		"container.devices[0].host: ":                 func(s *release.ContainerSpec) { s.Devices = []release.Device{{Host: "fuse"}} },
		"container.gpus: ":                            func(s *release.ContainerSpec) { s.GPUs = "some" },
		"container.ulimits.nofile: ":                  func(s *release.ContainerSpec) { s.Ulimits = map[string]release.Ulimit{"nofile": {Soft: 9, Hard: 8}} },
		"container.resources.memory_swap: ":           func(s *release.ContainerSpec) { s.Resources = &release.ContainerResources{MemorySwap: "much"} },
		"container.resources.blkio_weight: ":          func(s *release.ContainerSpec) { s.Resources = &release.ContainerResources{BlkioWeight: 5000} },
		"container.health_check: ":                    func(s *release.ContainerSpec) { s.HealthCheck = &release.ContainerHealth{Shell: "true", Disable: true} },
		"container.health_check.interval: ":           func(s *release.ContainerSpec) { s.HealthCheck = &release.ContainerHealth{Interval: 1} },
		"container.registry.server: the login is for": func(s *release.ContainerSpec) { s.Registry = &release.RegistryAuth{Server: "other.example.com"} },
	} {
		s := sample()
		change(s)
		_, err := build(s, identity{}, nil)
		require.ErrorIs(t, err, release.ErrInvalid, want)
		require.ErrorContains(t, err, want)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	step := &executor.Step{Action: release.StepUpdate, Config: release.Merged{Type: release.TypeContainer}}
	require.ErrorIs(t, New(Config{}).Check(step), release.ErrInvalid)
	spec := sample()
	step.Config.Container = spec
	spec.Command = []string{"sh", "-c", "echo ${HOME}"} // for the container's own shell: variables were replaced before
	require.NoError(t, New(Config{}).Check(step))
	spec.Name = "web ${HOME}"
	require.ErrorContains(t, New(Config{}).Check(step), "container.name")
	step.Action = release.StepUninstall
	require.NoError(t, New(Config{}).Check(step), "what cannot be deployed any more can still be removed")
}

func TestClash(t *testing.T) {
	t.Parallel()
	of := func(ports ...release.Port) claim {
		s := sample()
		s.Ports = ports
		w, err := build(s, identity{}, nil)
		require.NoError(t, err)
		return claims(w.host, w.networks)
	}
	for want, both := range map[string][2]claim{
		"port 80/tcp": {of(release.Port{Container: 1, Host: 80}), of(release.Port{Container: 2, Host: 80, HostIP: "127.0.0.1"})},
		"port 81/tcp": {of(release.Port{Container: 1, Host: 81, HostIP: "0.0.0.0"}), of(release.Port{Container: 2, Host: 81, HostIP: "::1"})},
	} {
		require.Equal(t, want, both[0].clash(both[1]))
		require.Equal(t, want, both[1].clash(both[0]))
	}
	for _, both := range [][2]claim{
		{of(release.Port{Container: 1}), of(release.Port{Container: 1})},
		{of(release.Port{Container: 1, Host: 80}), of(release.Port{Container: 1, Host: 80, Protocol: "udp"})},
		{of(release.Port{Container: 1, Host: 80, HostIP: "127.0.0.1"}), of(release.Port{Container: 1, Host: 80, HostIP: "127.0.0.2"})},
	} {
		require.Empty(t, both[0].clash(both[1]))
	}
	host := claims(&container.HostConfig{NetworkMode: "host"}, nil)
	require.Equal(t, "the host's network", host.clash(host))
	shared := claims(&container.HostConfig{NetworkMode: "container:vpn"}, nil)
	require.Equal(t, "the network of container vpn", shared.clash(shared))
	require.Empty(t, shared.clash(host))
	require.True(t, claimedPort{80, "tcp", netip.Addr{}}.overlaps(claimedPort{80, "tcp", netip.MustParseAddr("10.0.0.1")}))
}

// What engines and registries say, as they were seen to, or as their sources have it.
func TestReasons(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"manifest for x:9 not found: manifest unknown: manifest unknown":                    "not found",
		"Head \"http://x/v2/app/manifests/1\": no basic auth credentials":                   "the registry wants a login",
		"pull access denied for x, repository does not exist or may require 'docker login'": "not found, or the registry wants a login",
		"denied: requested access to the resource is denied":                                "the registry denied access",
		"write /var/lib/docker/tmp/GetImageBlob1: no space left on device":                  "the disk of the Docker engine is full",
		"Get \"https://x/v2/\": dial tcp 10.0.0.1:443: connect: connection refused":         "the registry cannot be reached: connection refused",
		"Get \"https://x/v2/\": dial tcp: lookup x: no such host":                           "the registry cannot be reached: no such host",
		"no matching manifest for linux/arm64/v8 in the manifest list entries":              "not there for this platform",
		"something new\nwith a second line":                                                 "something new",
	} {
		require.EqualError(t, pullError("app:1", false, errors.New(text)), "image app:1: "+want)
	}
	// Names say nothing.
	for text, want := range map[string]string{
		"manifest for example.com/team/denied:v1.401 not found: manifest unknown":                                         "not found",
		"manifest for team/denied:v1.401 not found: manifest unknown":                                                     "not found",
		"Get \"https://example.com/v2/team/denied/manifests/v1.401\": dial tcp 10.0.0.1:443: connect: connection refused": "the registry cannot be reached: connection refused",
		"received unexpected HTTP status: 401 Unauthorized":                                                               "the registry wants a login",
		"the registry answered 401": "the registry wants a login",
	} {
		require.EqualError(t, pullError("example.com/team/denied:v1.401", false, errors.New(text)), "image example.com/team/denied:v1.401: "+want)
	}
	require.EqualError(t, pullError("app:1", true, errors.New("unauthorized: authentication required")), "image app:1: the registry refused the login")
	for text, want := range map[string]string{
		"driver failed programming external connectivity on endpoint x: Bind for 0.0.0.0:8080 failed: port is already allocated":                                                "8080",
		"driver failed programming external connectivity on endpoint x: Error starting userland proxy: listen tcp4 0.0.0.0:8090: bind: address already in use":                  "8090",
		"failed to set up container networking: driver failed programming external connectivity on endpoint x: failed to bind host port 0.0.0.0:81/tcp: address already in use": "81",
		"failed to bind host port for [::1]:82:172.17.0.2:80/tcp: address already in use":                                                                                       "82",
	} {
		port, taken := portTaken(plain(errors.New(text)))
		require.True(t, taken, text)
		require.Equal(t, want, port)
	}
	_, taken := portTaken(errors.New("no such image"))
	require.False(t, taken)
	require.EqualError(t, plain(errors.New("Error response from daemon: bad\nmore")), "bad")
}

func TestProgress(t *testing.T) {
	t.Parallel()
	var p progress
	at := time.Unix(0, 0)
	tell := func(id, status string, got, needed int64) string {
		return p.add(id, status, [2]int64{got, needed}, at)
	}
	require.Empty(t, tell("", "Pulling from team/app", 0, 0))
	require.Empty(t, tell("a", "Already exists", 0, 0))
	require.Empty(t, tell("b", "Pulling fs layer", 0, 0))
	require.Empty(t, tell("b", "Downloading", 1_500_000, 4_000_000))
	at = at.Add(pullReport)
	require.Equal(t, "pulling: 1 of 3 layers, 1.5 of 4.0 MB", tell("c", "Waiting", 0, 0))
	require.Empty(t, tell("b", "Downloading", 2_000_000, 4_000_000), "one line from time to time")
	at = at.Add(pullReport)
	require.Equal(t, "pulling: 2 of 3 layers, 4.0 of 4.0 MB", tell("b", "Pull complete", 0, 0))
}
