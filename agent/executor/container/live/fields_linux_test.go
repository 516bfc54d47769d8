package live

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/executortest"
	dockerlab "github.com/quicflow/quicflow/internal/lab/docker"
	"github.com/quicflow/quicflow/internal/release"
)

// fieldCase is a container with some fields set, and for each of them what inspecting it shows.
type fieldCase struct {
	set func(t *testing.T, p *project, s *release.ContainerSpec)
	// checks by the field's path: what was found, and what it has to be.
	checks map[string]func(p *project, c container.InspectResponse) (got, want any)
	// needs is the engine's API that has the fields: older ones refuse them.
	needs string
	// unstarted: not every machine can start it, as where root has not all capabilities; it is looked at before that.
	unstarted bool
	// refused is what the step may fail with instead, on a machine whose kernel cannot do it.
	refused string
}

// elsewhere names the tests of fields that inspecting does not show.
var elsewhere = map[string]string{
	"registry.server": "TestRegistryLogin", "registry.username": "TestRegistryLogin", "registry.password": "TestRegistryLogin",
	"pull_policy": "TestPullPolicy", "update": "TestUpdateModes", "settle": "TestWithoutHealthCheck", "keep_old": "TestKeepOld",
	"timeout": "TestTimeout", "interpreter": "TestInterpreter", "pre_script": "TestScripts", "post_script": "TestScripts",
	"health": "TestAgentsHealthCheck", "volumes[].no_copy": "TestVolumes", "volumes[].create": "TestVolumes",
}

func is(want any, got func(c container.InspectResponse) any) func(*project, container.InspectResponse) (any, any) {
	return func(_ *project, c container.InspectResponse) (any, any) { return got(c), want }
}

func host(want any, got func(h *container.HostConfig) any) func(*project, container.InspectResponse) (any, any) {
	return is(want, func(c container.InspectResponse) any { return got(c.HostConfig) })
}

func config(want any, got func(h *container.Config) any) func(*project, container.InspectResponse) (any, any) {
	return is(want, func(c container.InspectResponse) any { return got(c.Config) })
}

// port and bound are what the first published port of the case "many" became.
var port = network.MustParsePort("8080/tcp")

func bound(get func(b network.PortBinding) any) func(c container.InspectResponse) any {
	return func(c container.InspectResponse) any { return get(c.HostConfig.PortBindings[port][0]) }
}

func mounted(target string, get func(m container.MountPoint) any) func(c container.InspectResponse) any {
	return func(c container.InspectResponse) any {
		for _, m := range c.Mounts {
			if m.Destination == target {
				return get(m)
			}
		}
		return "no such mount"
	}
}

func joined(get func(e *network.EndpointSettings) any) func(p *project, c container.InspectResponse) any {
	return func(p *project, c container.InspectResponse) any {
		e := c.NetworkSettings.Networks[p.name+"-net"]
		if e == nil {
			return "not joined"
		}
		return get(e)
	}
}

// makeNetwork gives a network with addresses of its own.
func makeNetwork(t *testing.T, p *project, name string, subnets ...string) {
	t.Helper()
	options := client.NetworkCreateOptions{Driver: "bridge", IPAM: &network.IPAM{}}
	for _, s := range subnets {
		prefix := netip.MustParsePrefix(s)
		options.IPAM.Config = append(options.IPAM.Config, network.IPAMConfig{Subnet: prefix})
		if prefix.Addr().Is6() {
			yes := true
			options.EnableIPv6 = &yes
		}
	}
	made, err := p.api.NetworkCreate(context.Background(), name, options)
	require.NoError(t, err)
	t.Cleanup(func() {
		p.removeAll()
		_, err := p.api.NetworkRemove(context.Background(), made.ID, client.NetworkRemoveOptions{})
		require.NoError(t, err)
	})
}

// cgroupParent is one that the engine takes: where systemd makes its cgroups, as on most hosts with cgroup v2, it takes slices only.
func cgroupParent(t *testing.T, p *project) string {
	t.Helper()
	engine, err := p.api.Info(t.Context(), client.InfoOptions{})
	require.NoError(t, err)
	if engine.Info.CgroupDriver == "systemd" {
		return "quicflow-test.slice"
	}
	return "/quicflow-test"
}

var fieldCases = map[string]fieldCase{
	"many": {
		set: func(t *testing.T, p *project, s *release.ContainerSpec) {
			makeNetwork(t, p, p.name+"-net", "10.99.0.0/24", "fd00:99::/64")
			makeNetwork(t, p, p.name+"-other")
			p.port = 0
			s.ImageTag = "v1"
			s.Platform = "linux/amd64"
			s.Entrypoint, s.Command = []string{"/bin/busybox"}, []string{"httpd", "-f", "-p", "8080", "-h", "/www"}
			s.Env = map[string]string{"GREETING": "hello world; $(id)"}
			s.User, s.WorkDir = "1000:1000", "/tmp"
			s.Labels = map[string]string{"team": "web"}
			s.Name = "${QUICFLOW_PROJECT}-${QUICFLOW_TARGET}"
			s.Hostname, s.Domainname = "box", "example.com"
			s.Ports = []release.Port{{Container: 8080, Host: 19999, HostIP: "127.0.0.1", Protocol: "tcp"}, {Container: 53, Protocol: "udp"}}
			s.Networks = []release.ContainerNetwork{
				{Name: p.name + "-net", Aliases: []string{"web"}, IPv4: "10.99.0.9", IPv6: "fd00:99::9"}, {Name: p.name + "-other"},
			}
			s.DNS, s.DNSSearch, s.DNSOptions = []string{"192.0.2.1"}, []string{"example.org"}, []string{"ndots:3"}
			s.ExtraHosts = map[string]string{"db": "192.0.2.7"}
			s.Volumes = []release.Volume{
				{Type: "bind", Source: t.TempDir(), Target: "/data", ReadOnly: true, Propagation: "private"}, {Type: "volume", Source: p.name + "-vol", Target: "/vol"},
			}
			t.Cleanup(func() {
				p.removeAll()
				_, err := p.api.VolumeRemove(context.Background(), p.name+"-vol", client.VolumeRemoveOptions{})
				require.NoError(t, err)
			})
			s.Tmpfs = map[string]string{"/scratch": "size=64m"}
			s.ShmSize = 32 << 20
			s.CapAdd, s.CapDrop = []string{"net_admin"}, []string{"CHOWN"}
			s.SecurityOpt, s.ReadOnly = []string{"no-new-privileges"}, true
			s.Devices = []release.Device{{Host: "/dev/null", Container: "/dev/nothing", Permissions: "rw"}}
			s.Ulimits = map[string]release.Ulimit{"nofile": {Soft: 512, Hard: 1024}}
			s.Sysctls = map[string]string{"net.core.somaxconn": "512"}
			s.GroupAdd, s.IpcMode, s.CgroupParent, s.Runtime, s.OomScoreAdj = []string{"27"}, "shareable", cgroupParent(t, p), "runc", 300
			s.Resources = &release.ContainerResources{
				Memory: 64 << 20, MemoryReservation: 32 << 20, MemorySwap: "96m", CPUs: 0.75, CPUShares: 512, Cpuset: "0", Pids: 50,
			}
			s.HealthCheck = &release.ContainerHealth{
				Test: dockerlab.Healthy, Interval: release.Duration(150 * time.Millisecond), Timeout: release.Duration(3 * time.Second),
				StartPeriod: release.Duration(time.Second), Retries: 7,
			}
			s.Restart = &release.RestartPolicy{Name: "on-failure", MaxRetries: 4}
			s.StopSignal, s.StopTimeout = "SIGINT", release.Duration(3*time.Second)
			s.Init = true
			s.Log = &release.ContainerLog{Driver: "json-file", Options: map[string]string{"max-size": "1m"}}
		},
		checks: map[string]func(*project, container.InspectResponse) (any, any){
			"image":             config(image+":v1", func(c *container.Config) any { return c.Image }),
			"image_tag":         config(image+":v1", func(c *container.Config) any { return c.Image }),
			"platform":          is("linux", func(c container.InspectResponse) any { return c.Platform }),
			"entrypoint":        config([]string{"/bin/busybox"}, func(c *container.Config) any { return c.Entrypoint }),
			"command":           config([]string{"httpd", "-f", "-p", "8080", "-h", "/www"}, func(c *container.Config) any { return c.Cmd }),
			"env":               config(true, func(c *container.Config) any { return contains(c.Env, "GREETING=hello world; $(id)") }),
			"user":              config("1000:1000", func(c *container.Config) any { return c.User }),
			"work_dir":          config("/tmp", func(c *container.Config) any { return c.WorkingDir }),
			"labels":            config("web", func(c *container.Config) any { return c.Labels["team"] }),
			"name":              func(p *project, c container.InspectResponse) (any, any) { return c.Name, "/" + p.name + "-host-1" },
			"hostname":          config("box", func(c *container.Config) any { return c.Hostname }),
			"domainname":        config("example.com", func(c *container.Config) any { return c.Domainname }),
			"ports[].container": host(2, func(h *container.HostConfig) any { return len(h.PortBindings) }),
			"ports[].host":      is("19999", bound(func(b network.PortBinding) any { return b.HostPort })),
			"ports[].host_ip":   is("127.0.0.1", bound(func(b network.PortBinding) any { return b.HostIP.String() })),
			"ports[].protocol":  host(1, func(h *container.HostConfig) any { return len(h.PortBindings[network.MustParsePort("53/udp")]) }),
			"networks[].name": func(p *project, c container.InspectResponse) (any, any) {
				return c.NetworkSettings.Networks[p.name+"-net"] != nil && c.NetworkSettings.Networks[p.name+"-other"] != nil && len(c.NetworkSettings.Networks) == 2, true
			},
			"networks[].aliases": func(p *project, c container.InspectResponse) (any, any) {
				return joined(func(e *network.EndpointSettings) any { return contains(e.Aliases, "web") })(p, c), true
			},
			"networks[].ipv4": func(p *project, c container.InspectResponse) (any, any) {
				return joined(func(e *network.EndpointSettings) any { return e.IPAddress.String() })(p, c), "10.99.0.9"
			},
			"networks[].ipv6": func(p *project, c container.InspectResponse) (any, any) {
				return joined(func(e *network.EndpointSettings) any { return e.GlobalIPv6Address.String() })(p, c), "fd00:99::9"
			},
			"dns":            host("[192.0.2.1]", func(h *container.HostConfig) any { return fmt.Sprint(h.DNS) }),
			"dns_search":     host([]string{"example.org"}, func(h *container.HostConfig) any { return h.DNSSearch }),
			"dns_options":    host([]string{"ndots:3"}, func(h *container.HostConfig) any { return h.DNSOptions }),
			"extra_hosts":    host([]string{"db:192.0.2.7"}, func(h *container.HostConfig) any { return h.ExtraHosts }),
			"volumes[].type": is(mount.TypeVolume, mounted("/vol", func(m container.MountPoint) any { return m.Type })),
			"volumes[].source": func(p *project, c container.InspectResponse) (any, any) {
				return mounted("/vol", func(m container.MountPoint) any { return m.Name })(c), p.name + "-vol"
			},
			"volumes[].target":      is(mount.TypeBind, mounted("/data", func(m container.MountPoint) any { return m.Type })),
			"volumes[].read_only":   is(false, mounted("/data", func(m container.MountPoint) any { return m.RW })),
			"volumes[].propagation": is(mount.PropagationPrivate, mounted("/data", func(m container.MountPoint) any { return m.Propagation })),
			"tmpfs":                 host(map[string]string{"/scratch": "size=64m"}, func(h *container.HostConfig) any { return h.Tmpfs }),
			"shm_size":              host(int64(32<<20), func(h *container.HostConfig) any { return h.ShmSize }),
			"cap_add":               host([]string{"CAP_NET_ADMIN"}, func(h *container.HostConfig) any { return h.CapAdd }),
			"cap_drop":              host([]string{"CAP_CHOWN"}, func(h *container.HostConfig) any { return h.CapDrop }),
			"security_opt":          host([]string{"no-new-privileges"}, func(h *container.HostConfig) any { return h.SecurityOpt }),
			"read_only":             host(true, func(h *container.HostConfig) any { return h.ReadonlyRootfs }),
			"devices[].host":        host("/dev/null", func(h *container.HostConfig) any { return h.Devices[0].PathOnHost }),
			"devices[].container":   host("/dev/nothing", func(h *container.HostConfig) any { return h.Devices[0].PathInContainer }),
			"devices[].permissions": host("rw", func(h *container.HostConfig) any { return h.Devices[0].CgroupPermissions }),
			"ulimits{}.soft":        host(int64(512), func(h *container.HostConfig) any { return h.Ulimits[0].Soft }),
			"ulimits{}.hard":        host(int64(1024), func(h *container.HostConfig) any { return h.Ulimits[0].Hard }),
			"sysctls":               host("512", func(h *container.HostConfig) any { return h.Sysctls["net.core.somaxconn"] }),
			"group_add":             host([]string{"27"}, func(h *container.HostConfig) any { return h.GroupAdd }),
			"ipc_mode":              host(container.IPCModeShareable, func(h *container.HostConfig) any { return h.IpcMode }),
			"cgroup_parent": func(p *project, c container.InspectResponse) (any, any) {
				return c.HostConfig.CgroupParent, cgroupParent(p.t, p)
			},
			"runtime":       host("runc", func(h *container.HostConfig) any { return h.Runtime }),
			"oom_score_adj": host(300, func(h *container.HostConfig) any { return h.OomScoreAdj }),

			"resources.memory":             host(int64(64<<20), func(h *container.HostConfig) any { return h.Memory }),
			"resources.memory_reservation": host(int64(32<<20), func(h *container.HostConfig) any { return h.MemoryReservation }),
			"resources.memory_swap":        host(int64(96<<20), func(h *container.HostConfig) any { return h.MemorySwap }),
			"resources.cpus":               host(int64(750_000_000), func(h *container.HostConfig) any { return h.NanoCPUs }),
			"resources.cpu_shares":         host(int64(512), func(h *container.HostConfig) any { return h.CPUShares }),
			"resources.cpuset":             host("0", func(h *container.HostConfig) any { return h.CpusetCpus }),
			"resources.pids":               host(int64(50), func(h *container.HostConfig) any { return *h.PidsLimit }),

			"health_check.test":         config(append([]string{"CMD"}, dockerlab.Healthy...), func(c *container.Config) any { return c.Healthcheck.Test }),
			"health_check.interval":     config(150*time.Millisecond, func(c *container.Config) any { return c.Healthcheck.Interval }),
			"health_check.timeout":      config(3*time.Second, func(c *container.Config) any { return c.Healthcheck.Timeout }),
			"health_check.start_period": config(time.Second, func(c *container.Config) any { return c.Healthcheck.StartPeriod }),
			"health_check.retries":      config(7, func(c *container.Config) any { return c.Healthcheck.Retries }),
			"restart.name":              host(container.RestartPolicyOnFailure, func(h *container.HostConfig) any { return h.RestartPolicy.Name }),
			"restart.max_retries":       host(4, func(h *container.HostConfig) any { return h.RestartPolicy.MaximumRetryCount }),
			"stop_signal":               config("SIGINT", func(c *container.Config) any { return c.StopSignal }),
			"stop_timeout":              config(3, func(c *container.Config) any { return *c.StopTimeout }),
			"init":                      host(true, func(h *container.HostConfig) any { return *h.Init }),
			"log.driver":                host("json-file", func(h *container.HostConfig) any { return h.LogConfig.Type }),
			"log.options":               host(map[string]string{"max-size": "1m"}, func(h *container.HostConfig) any { return h.LogConfig.Config }),
		},
	},
	"the host's": {
		set: func(_ *testing.T, p *project, s *release.ContainerSpec) {
			p.port, s.Ports = 0, nil
			s.Network, s.PidMode, s.UsernsMode, s.GPUs = "host", "host", "host", "2"
			s.HealthCheck = &release.ContainerHealth{Shell: "busybox true", Interval: release.Duration(300 * time.Millisecond)}
		},
		checks: map[string]func(*project, container.InspectResponse) (any, any){
			"network_mode": host(container.NetworkMode("host"), func(h *container.HostConfig) any { return h.NetworkMode }),
			"pid_mode":     host(container.PidMode("host"), func(h *container.HostConfig) any { return h.PidMode }),
			"userns_mode":  host(container.UsernsMode("host"), func(h *container.HostConfig) any { return h.UsernsMode }),
			"gpus": host(container.DeviceRequest{Count: 2, Capabilities: [][]string{{"gpu"}}}, func(h *container.HostConfig) any {
				r := h.DeviceRequests[0]
				r.DeviceIDs, r.Options = nil, nil
				return r
			}),
			"health_check.shell": config([]string{"CMD-SHELL", "busybox true"}, func(c *container.Config) any { return c.Healthcheck.Test }),
		},
	},
	"no health check": {
		set: func(_ *testing.T, _ *project, s *release.ContainerSpec) {
			s.HealthCheck, s.Settle = &release.ContainerHealth{Disable: true}, release.Duration(100*time.Millisecond)
		},
		checks: map[string]func(*project, container.InspectResponse) (any, any){
			"health_check.disable": config([]string{"NONE"}, func(c *container.Config) any { return c.Healthcheck.Test }),
		},
	},
	"privileged": {
		unstarted: true,
		set:       func(_ *testing.T, _ *project, s *release.ContainerSpec) { s.Privileged = true },
		checks: map[string]func(*project, container.InspectResponse) (any, any){
			"privileged": host(true, func(h *container.HostConfig) any { return h.Privileged }),
		},
	},
	"block devices": {
		refused: "the Docker engine of this host does not take resources.blkio_weight: Your kernel does not support Block I/O weight",
		set: func(_ *testing.T, _ *project, s *release.ContainerSpec) {
			s.Resources = &release.ContainerResources{BlkioWeight: 300}
		},
		checks: map[string]func(*project, container.InspectResponse) (any, any){
			"resources.blkio_weight": host(uint16(300), func(h *container.HostConfig) any { return h.BlkioWeight }),
		},
	},
	"annotations": {
		needs: "1.43",
		set:   func(_ *testing.T, _ *project, s *release.ContainerSpec) { s.Annotations = map[string]string{"a": "b"} },
		checks: map[string]func(*project, container.InspectResponse) (any, any){
			"annotations": host(map[string]string{"a": "b"}, func(h *container.HostConfig) any { return h.Annotations }),
		},
	},
	"start interval": {
		needs: "1.44",
		set: func(_ *testing.T, _ *project, s *release.ContainerSpec) {
			check := *s.HealthCheck
			check.StartInterval = release.Duration(50 * time.Millisecond)
			s.HealthCheck = &check
		},
		checks: map[string]func(*project, container.InspectResponse) (any, any){
			"health_check.start_interval": config(50*time.Millisecond, func(c *container.Config) any { return c.Healthcheck.StartInterval }),
		},
	},
}

func contains(list []string, want string) bool {
	for _, s := range list {
		if s == want {
			return true
		}
	}
	return false
}

// Every field that can be set has an effect, or is refused.
func TestFields(t *testing.T) {
	t.Parallel()
	for name, f := range fieldCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProject(t)
			f.set(t, p, &p.spec)
			set := map[string]bool{}
			walk("", reflect.ValueOf(p.spec), func(path string, v reflect.Value) { set[path] = set[path] || !v.IsZero() })
			for path := range f.checks {
				require.True(t, set[path], "the case says that it checks %s, but does not set it", path)
			}
			step := p.step(release.StepInstall, "v1")
			if ping, err := p.api.Ping(t.Context(), client.PingOptions{}); f.needs != "" && versions.LessThan(ping.APIVersion, f.needs) {
				require.NoError(t, err)
				require.Contains(t, p.fails(step), "this needs "+f.needs)
				require.Empty(t, p.containers())
				return
			}
			var c container.InspectResponse
			tl := &tools{step: step}
			if f.unstarted {
				tl.onLine = func(line string) {
					if strings.HasPrefix(line, "made container") {
						c = p.inspect(p.temporary(step))
					}
				}
			}
			err := p.workWith(t.Context(), step, false, tl)
			switch {
			case f.unstarted && err != nil:
				require.Empty(t, p.containers(), "nothing is left of it")
			case f.refused != "" && err != nil:
				require.ErrorContains(t, err, f.refused)
				require.Empty(t, p.containers(), "nothing is left of it")
				return
			default:
				require.NoError(t, err)
				c = p.runs("v1")
			}
			for path, check := range f.checks {
				got, want := check(p, c)
				require.Equal(t, want, got, path)
			}
			if err == nil {
				p.unchanged(step)
			}
		})
	}
}

// unchanged says that a container that nobody touched does not count as changed.
func (p *project) unchanged(step *executor.Step) {
	p.t.Helper()
	running := p.describe(step)
	require.Equal(p.t, executor.RunOK, running.State, running.Reason)
}

// No field is without a check. A field that is added without one fails here.
func TestEveryFieldIsChecked(t *testing.T) {
	t.Parallel()
	checked := map[string]bool{}
	for _, f := range fieldCases {
		for path := range f.checks {
			checked[path] = true
		}
	}
	uses := executortest.Identifiers(t)
	goNames := map[string]string{}
	fields := 0
	// The agent's health check is the same for all types.
	whole := func(path string) bool { return path == "health" }
	executortest.WalkFields(reflect.TypeFor[release.ContainerSpec](), whole, func(path, goName string) {
		fields++
		goNames[path] = goName
		test, ok := elsewhere[path]
		if !ok {
			require.True(t, checked[path], "no test sees an effect of %s", path)
			return
		}
		require.True(t, uses[test][goName], "%s is to check %s, but does not name %s", test, path, goName)
	})
	require.Greater(t, fields, 80)
	for path := range checked {
		require.Contains(t, goNames, path, "there is no such field any more")
	}
}

// walk visits the values of the same fields as executortest.WalkFields.
func walk(prefix string, v reflect.Value, visit func(path string, v reflect.Value)) {
	for i := range v.NumField() {
		f, value := v.Type().Field(i), v.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		path := prefix + name
		each := func(suffix string, inner reflect.Value) {
			if inner.Kind() == reflect.Struct && inner.Type() != reflect.TypeFor[release.Health]() {
				walk(path+suffix+".", inner, visit)
			}
		}
		switch value.Kind() {
		case reflect.Pointer:
			if !value.IsNil() {
				each("", value.Elem())
			}
		case reflect.Slice:
			for i := range value.Len() {
				each("[]", value.Index(i))
			}
		case reflect.Map:
			for it := value.MapRange(); it.Next(); {
				each("{}", it.Value())
			}
		}
		visit(path, value)
	}
}
