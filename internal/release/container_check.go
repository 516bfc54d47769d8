package release

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/quicflow/quicflow/internal/lazyregexp"
)

// Limits of containers.
const (
	maxKeepOld      = 20
	minMemory       = 6 << 20 // an engine refuses less
	maxStopTimeout  = maxPeriod
	reservedLabel   = "quicflow."
	maxListElements = 1000
)

var (
	containerNameForm = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)
	platformForm      = lazyregexp.New(`^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?$`)
	networkModeForm   = lazyregexp.New(`^(host|none|bridge|default|container:[A-Za-z0-9][A-Za-z0-9_.-]*)$`)
	pidModeForm       = lazyregexp.New(`^(host|container:[A-Za-z0-9][A-Za-z0-9_.-]*)$`)
	ipcModeForm       = lazyregexp.New(`^(none|private|shareable|host|container:[A-Za-z0-9][A-Za-z0-9_.-]*)$`)
	wordForm          = lazyregexp.New(`^[^\s[:cntrl:]]+$`)
	lineForm          = lazyregexp.New(`^[^\n\r]+$`)
	permissionsForm   = lazyregexp.New(`^[rwm]{1,3}$`)
	gpusForm          = lazyregexp.New(`^(all|[0-9]{1,3}|device=[A-Za-z0-9:_.-]+(,[A-Za-z0-9:_.-]+)*)$`)
	sysctlForm        = lazyregexp.New(`^[a-z0-9_]+([./][A-Za-z0-9_*-]+)+$`)
	signalForm        = lazyregexp.New(`^((SIG)?[A-Z][A-Z0-9]*([+-][0-9]{1,2})?|[1-9]|[1-5][0-9]|6[0-5])$`)
	searchForm        = lazyregexp.New(`^\.$|` + hostForm.String())
	cpusetForm        = lazyregexp.New(`^[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*$`)
	logDriverForm     = lazyregexp.New(`^[a-z0-9][a-z0-9_./:-]*$`)
	labelKeyForm      = lazyregexp.New(`^[^\s=[:cntrl:]]{1,256}$`)
)

// ulimitNames are those that the engine knows.
var ulimitNames = []string{"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime",
	"sigpending", "stack"}

func (s *ContainerSpec) validate(c *checker, layer Layer) {
	switch {
	case layer == LayerProject && s.Image == "":
		c.fail("image", "name the image's repository, such as registry.example.com/team/app")
	case (layer == LayerVersion || layer == layerMerged) && s.ImageTag == "":
		c.fail("image_tag", "a version needs the tag, or the digest, of its image")
	}
	c.image(s.Image, s.ImageTag, s.Registry)
	c.oneOf("pull_policy", s.PullPolicy, "always", "missing", "never")
	c.form("platform", s.Platform, platformForm, "os/arch, such as linux/arm64")
	c.form("user", s.User, userForm, "a user or uid, with group or gid after a colon")
	c.absolute("work_dir", s.WorkDir)
	c.labels("labels", s.Labels)
	c.network(s)
	c.mounts(s)
	c.rights(s)
	if s.Resources != nil {
		c.containerResources(s.Resources, layer)
	}
	c.life(s)
	c.common(s.Env, s.Timeout, s.Interpreter, s.Health, s.PreScript, s.PostScript)
}

func (c *checker) labels(at string, labels map[string]string) {
	keys(labels, func(key, _ string) {
		switch {
		case !labelKeyForm.MatchString(key):
			c.fail(at, "%s is not a name for a label", quote(key))
		case strings.HasPrefix(key, reservedLabel):
			c.fail(at+"."+key, "labels beginning with %s are QuicFlow's own", reservedLabel)
		}
	})
}

// network checks where a container can be reached.
func (c *checker) network(s *ContainerSpec) {
	c.form("name", s.Name, containerNameForm, "a name for a container: letters, digits, dots, dashes and underscores")
	c.form("hostname", s.Hostname, hostForm, "a host name")
	c.form("domainname", s.Domainname, hostForm, "a domain name")
	c.form("network_mode", s.Network, networkModeForm, "host, none, bridge or container:NAME")
	for i, p := range s.Ports {
		at := fmt.Sprintf("ports[%d].", i)
		c.between(at+"container", int64(p.Container), 1, 65535)
		c.between(at+"host", int64(p.Host), 0, 65535)
		c.address(at+"host_ip", p.HostIP)
		c.oneOf(at+"protocol", p.Protocol, "tcp", "udp", "sctp")
	}
	c.distinct(len(s.Ports), func(i int) (at, key string) {
		p := s.Ports[i]
		if p.Host != 0 {
			key = fmt.Sprintf("%s:%d/%s", p.HostIP, p.Host, cmp.Or(p.Protocol, "tcp"))
		}
		return fmt.Sprintf("ports[%d].host", i), strings.TrimPrefix(key, ":")
	})
	ownNetwork := s.Network != "" && s.Network != "bridge" && s.Network != "default" && !hasReference(s.Network)
	if ownNetwork && len(s.Ports) > 0 {
		c.fail("ports", "nothing is published with network_mode %s; leave them out", s.Network)
	}
	if s.Network != "" && len(s.Networks) > 0 {
		c.fail("network_mode", "give networks or network_mode, not both")
	}
	for i, n := range s.Networks {
		at := fmt.Sprintf("networks[%d].", i)
		if n.Name == "" {
			c.fail(at+"name", "name the network")
		}
		c.form(at+"name", n.Name, containerNameForm, "the name of a network")
		c.forms(at+"aliases", n.Aliases, hostForm, "a host name")
		if a, err := netip.ParseAddr(n.IPv4); n.IPv4 != "" && !hasReference(n.IPv4) && (err != nil || !a.Is4()) {
			c.fail(at+"ipv4", "%s is not an IPv4 address", quote(n.IPv4))
		}
		if a, err := netip.ParseAddr(n.IPv6); n.IPv6 != "" && !hasReference(n.IPv6) && (err != nil || !a.Is6()) {
			c.fail(at+"ipv6", "%s is not an IPv6 address", quote(n.IPv6))
		}
	}
	c.distinct(len(s.Networks), func(i int) (at, key string) { return fmt.Sprintf("networks[%d].name", i), s.Networks[i].Name })
	for i, server := range s.DNS {
		at := fmt.Sprintf("dns[%d]", i)
		if server == "" {
			c.fail(at, "is empty; want an IP address")
		}
		c.address(at, server)
	}
	c.forms("dns_search", s.DNSSearch, searchForm, "a domain name")
	c.forms("dns_options", s.DNSOptions, wordForm, "an option")
	keys(s.ExtraHosts, func(host, address string) {
		if !hostForm.MatchString(host) {
			c.fail("extra_hosts", "%s is not a host name", quote(host))
		}
		if address == "" {
			c.fail("extra_hosts."+host, "is empty; want an IP address or host-gateway")
		}
		if address != "host-gateway" {
			c.address("extra_hosts."+host, address)
		}
	})
}

// mounts checks what a container sees of its host.
func (c *checker) mounts(s *ContainerSpec) {
	for i, v := range s.Volumes {
		at := fmt.Sprintf("volumes[%d].", i)
		c.oneOf(at+"type", v.Type, "bind", "volume")
		c.oneOf(at+"propagation", v.Propagation, "private", "rprivate", "shared", "rshared", "slave", "rslave")
		switch v.Target {
		case "":
			c.fail(at+"target", "name the path within the container")
		case "/":
			c.fail(at+"target", "the root of the container cannot be a volume")
		}
		c.absolute(at+"target", v.Target)
		bind := v.Type == "bind" || v.Type == "" && (strings.HasPrefix(v.Source, "/") || strings.HasPrefix(v.Source, "${"))
		switch {
		case v.Type == "bind" && v.Source == "":
			c.fail(at+"source", "name the path on the host")
		case bind:
			c.absolute(at+"source", v.Source)
		case v.Source != "":
			c.form(at+"source", v.Source, containerNameForm, "an absolute path, or the name of a volume")
		}
		switch {
		case !bind && v.Create:
			c.fail(at+"create", "is for paths of the host; the engine makes a missing volume by itself")
		case !bind && v.Propagation != "":
			c.fail(at+"propagation", "is for paths of the host")
		case v.NoCopy && (v.Type == "bind" || bind && !hasReference(v.Source)): // which may become the name of a volume
			c.fail(at+"no_copy", "is for volumes of the engine")
		}
	}
	c.distinct(len(s.Volumes), func(i int) (at, key string) { return fmt.Sprintf("volumes[%d].target", i), s.Volumes[i].Target })
	keys(s.Tmpfs, func(where, options string) {
		c.absolute("tmpfs", where)
		c.form("tmpfs."+where, options, wordForm, "a list of mount options, such as size=64m,mode=1777")
	})
	for i, d := range s.Devices {
		at := fmt.Sprintf("devices[%d].", i)
		if d.Host == "" {
			c.fail(at+"host", "name the device, such as /dev/fuse")
		}
		c.absolute(at+"host", d.Host)
		c.absolute(at+"container", d.Container)
		c.form(at+"permissions", d.Permissions, permissionsForm, "made of r, w and m")
	}
}

// rights checks what a container may do.
func (c *checker) rights(s *ContainerSpec) {
	c.forms("cap_add", s.CapAdd, capabilityForm, "a capability, such as NET_ADMIN")
	c.forms("cap_drop", s.CapDrop, capabilityForm, "a capability, such as NET_ADMIN")
	c.forms("security_opt", s.SecurityOpt, lineForm, "a security option, such as no-new-privileges")
	c.form("gpus", s.GPUs, gpusForm, "all, a number, or device=ID,ID")
	keys(s.Ulimits, func(name string, u Ulimit) {
		at := "ulimits." + name
		if !slices.Contains(ulimitNames, name) {
			c.fail(at, "is none of %s", strings.Join(ulimitNames, ", "))
		}
		if u.Soft < -1 {
			c.fail(at+".soft", "%d is less than -1, which is no limit", u.Soft)
		}
		if u.Hard < -1 {
			c.fail(at+".hard", "%d is less than -1, which is no limit", u.Hard)
		}
		if u.Hard > 0 && (u.Soft > u.Hard || u.Soft == -1) {
			c.fail(at+".soft", "%d is more than the hard limit of %d", u.Soft, u.Hard)
		}
	})
	keys(s.Sysctls, func(name, value string) {
		if !sysctlForm.MatchString(name) {
			c.fail("sysctls", "%s is not a name such as net.core.somaxconn", quote(name))
		}
		c.form("sysctls."+name, value, lineForm, "a single line")
	})
	c.forms("group_add", s.GroupAdd, userForm, "a group")
	c.form("pid_mode", s.PidMode, pidModeForm, "host or container:NAME")
	c.form("ipc_mode", s.IpcMode, ipcModeForm, "none, private, shareable, host or container:NAME")
	c.oneOf("userns_mode", s.UsernsMode, "host")
	c.form("cgroup_parent", s.CgroupParent, wordForm, "the path of a cgroup")
	c.form("runtime", s.Runtime, containerNameForm, "the name of a runtime")
	c.between("oom_score_adj", int64(s.OomScoreAdj), -1000, 1000)
	keys(s.Annotations, func(key, _ string) {
		if !labelKeyForm.MatchString(key) {
			c.fail("annotations", "%s is not a name for an annotation", quote(key))
		}
	})
}

func (c *checker) containerResources(r *ContainerResources, layer Layer) {
	if r.Memory != 0 && r.Memory < minMemory {
		c.fail("resources.memory", "%s is less than the engine's minimum of 6m", r.Memory)
	}
	if r.CPUs < 0 || r.CPUs > 10000 {
		c.fail("resources.cpus", "%v is not between 0 and 10000", r.CPUs)
	}
	if r.CPUShares != 0 {
		c.between("resources.cpu_shares", r.CPUShares, 2, 262144)
	}
	c.form("resources.cpuset", r.Cpuset, cpusetForm, "a list such as 0-3,5")
	c.between("resources.pids", r.Pids, 0, 1<<22)
	if r.BlkioWeight != 0 {
		c.between("resources.blkio_weight", int64(r.BlkioWeight), 10, 1000)
	}
	var swap Bytes
	if r.MemorySwap != "" && r.MemorySwap != "-1" && !hasReference(r.MemorySwap) {
		if err := swap.UnmarshalText([]byte(r.MemorySwap)); err != nil {
			c.fail("resources.memory_swap", "%s is neither a size such as 1g nor -1", quote(r.MemorySwap))
		}
	}
	if layer != layerMerged {
		return // the others may come from other layers
	}
	if r.Memory != 0 && r.MemoryReservation > r.Memory {
		c.fail("resources.memory_reservation", "%s is more than the memory of %s", r.MemoryReservation, r.Memory)
	}
	switch {
	case r.MemorySwap == "":
	case r.Memory == 0:
		c.fail("resources.memory_swap", "has no meaning without resources.memory")
	case swap != 0 && swap < r.Memory:
		c.fail("resources.memory_swap", "%s is memory and swap together, so no less than the memory of %s", r.MemorySwap, r.Memory)
	}
}

// life checks how a container is started, watched, stopped and replaced.
func (c *checker) life(s *ContainerSpec) {
	if h := s.HealthCheck; h != nil {
		ways := 0
		for _, set := range []bool{len(h.Test) > 0, h.Shell != "", h.Disable} {
			if set {
				ways++
			}
		}
		if ways != 1 {
			c.fail("health_check", "wants exactly one of test, shell and disable")
		}
		for _, d := range []struct {
			name  string
			value Duration
		}{{"interval", h.Interval}, {"timeout", h.Timeout}, {"start_period", h.StartPeriod}, {"start_interval", h.StartInterval}} {
			c.atMost("health_check."+d.name, d.value, maxPeriod)
			if d.value != 0 && d.value < 1_000_000 {
				c.fail("health_check."+d.name, "%s is less than the engine's minimum of 1ms", d.value)
			}
		}
		c.between("health_check.retries", int64(h.Retries), 0, 1000)
	}
	if r := s.Restart; r != nil {
		if r.Name == "" {
			c.fail("restart.name", "is empty; want no, always, unless-stopped or on-failure")
		}
		c.oneOf("restart.name", r.Name, "no", "always", "unless-stopped", "on-failure")
		c.between("restart.max_retries", int64(r.MaxRetries), 0, 1000)
		if r.MaxRetries > 0 && r.Name != "on-failure" {
			c.fail("restart.max_retries", "is for on-failure alone")
		}
	}
	c.form("stop_signal", s.StopSignal, signalForm, "a signal, such as SIGTERM or 15")
	c.atMost("stop_timeout", s.StopTimeout, maxStopTimeout)
	if l := s.Log; l != nil {
		if l.Driver == "" {
			c.fail("log.driver", "name the driver, such as json-file")
		}
		c.form("log.driver", l.Driver, logDriverForm, "the name of a log driver")
		keys(l.Options, func(key, _ string) {
			if !labelKeyForm.MatchString(key) {
				c.fail("log.options", "%s is not the name of an option", quote(key))
			}
		})
	}
	c.oneOf("update", s.Update, "auto", "beside", "after")
	c.atMost("settle", s.Settle, maxPeriod)
	if s.KeepOld != nil {
		c.between("keep_old", int64(*s.KeepOld), 0, maxKeepOld)
	}
	for name, list := range map[string][]string{"entrypoint": s.Entrypoint, "command": s.Command} {
		if len(list) > maxListElements {
			c.fail(name, "has %s elements; the limit is %d", strconv.Itoa(len(list)), maxListElements)
		}
	}
}
