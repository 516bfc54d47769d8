package container

import (
	"fmt"
	"maps"
	"math"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/quicflow/quicflow/internal/lazyregexp"
	"github.com/quicflow/quicflow/internal/release"
)

// wanted is a container as the engine is asked for it.
type wanted struct {
	name      string
	reference string // of the image, with tag or digest
	digest    bool   // reference is a digest: what it names never changes
	domain    string // of the image's registry
	config    *container.Config
	host      *container.HostConfig
	networks  []endpoint // the first is joined when the container is created
	platform  *ocispec.Platform
	needs     []need
}

type endpoint struct {
	name     string
	endpoint *network.EndpointSettings
}

// need is a field that an engine must be of a version for: older ones leave it out without a word.
type need struct {
	field, version string
}

var containerName = lazyregexp.New(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// build turns a configuration into what the engine is asked for. env is what the container gets beside the configuration's own.
func build(s *release.ContainerSpec, id identity, env map[string]string) (*wanted, error) {
	b := &builder{spec: s, w: &wanted{
		name: s.Name,
		config: &container.Config{
			Hostname: s.Hostname, Domainname: s.Domainname, User: s.User, WorkingDir: s.WorkDir, Entrypoint: s.Entrypoint,
			Cmd: s.Command, StopSignal: s.StopSignal,
		},
		host: &container.HostConfig{
			NetworkMode: container.NetworkMode(s.Network), DNSSearch: s.DNSSearch, DNSOptions: s.DNSOptions, Tmpfs: s.Tmpfs,
			ShmSize: int64(s.ShmSize), Privileged: s.Privileged, CapAdd: s.CapAdd, CapDrop: s.CapDrop, SecurityOpt: s.SecurityOpt,
			ReadonlyRootfs: s.ReadOnly, Sysctls: s.Sysctls, GroupAdd: s.GroupAdd, PidMode: container.PidMode(s.PidMode),
			IpcMode: container.IpcMode(s.IpcMode), UsernsMode: container.UsernsMode(s.UsernsMode), Runtime: s.Runtime,
			OomScoreAdj: s.OomScoreAdj, Annotations: s.Annotations,
			Resources: container.Resources{CgroupParent: s.CgroupParent},
		},
	}}
	for _, step := range []func() error{
		b.image, b.names, b.restart, b.ports, b.network, b.addresses, b.volumes, b.devices, b.limits, b.resources, b.health,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	w := b.w
	if s.StopTimeout > 0 {
		seconds := int(math.Ceil(s.StopTimeout.Std().Seconds()))
		w.config.StopTimeout = &seconds
	}
	if s.Init {
		w.host.Init = &s.Init
	}
	if s.Log != nil {
		w.host.LogConfig = container.LogConfig{Type: s.Log.Driver, Config: s.Log.Options}
	}
	if len(s.Annotations) > 0 {
		w.needs = append(w.needs, need{"annotations", "1.43"})
	}
	all := maps.Clone(env)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, s.Env)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		w.config.Env = append(w.config.Env, name+"="+all[name])
	}
	w.config.Labels = maps.Clone(s.Labels)
	if w.config.Labels == nil {
		w.config.Labels = map[string]string{}
	}
	maps.Copy(w.config.Labels, id.labels(w.name, w.host.RestartPolicy))
	return w, nil
}

type builder struct {
	spec *release.ContainerSpec
	w    *wanted
}

func (b *builder) image() error {
	s, w := b.spec, b.w
	named, err := reference.ParseNormalizedNamed(s.Image)
	if err != nil || !reference.IsNameOnly(named) {
		return release.Invalid("container.image", "%q is not a repository without a tag, such as registry.example.com/team/app", s.Image)
	}
	w.digest = strings.Contains(s.ImageTag, ":")
	w.reference = s.Image + ":" + s.ImageTag
	if w.digest {
		w.reference = s.Image + "@" + s.ImageTag
	}
	if _, err := reference.ParseNormalizedNamed(w.reference); err != nil || s.ImageTag == "" {
		return release.Invalid("container.image_tag", "%q is neither a tag nor a digest (sha256:…)", s.ImageTag)
	}
	w.config.Image = w.reference
	w.domain = reference.Domain(named)
	if s.Registry != nil && s.Registry.Server != "" && registryHost(s.Registry.Server) != registryHost(w.domain) {
		return release.Invalid("container.registry.server", "the login is for %s, but the image is of %s", s.Registry.Server, w.domain)
	}
	if s.Platform != "" {
		var ok bool
		if w.platform, ok = platformOf(s.Platform); !ok {
			return release.Invalid("container.platform", "%q is not a platform such as linux/arm64", s.Platform)
		}
		w.needs = append(w.needs, need{"platform", "1.41"})
	}
	return nil
}

// registryHost is a registry's host however its login names it.
func registryHost(server string) string {
	if _, rest, ok := strings.Cut(server, "://"); ok {
		server = rest
	}
	server, _, _ = strings.Cut(server, "/")
	switch server {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		return "docker.io"
	}
	return server
}

func (b *builder) names() error {
	s := b.spec
	if !containerName.MatchString(s.Name) {
		return release.Invalid("container.name", "%q is not a name for a container: letters, digits, dots, dashes and underscores", s.Name)
	}
	for name := range s.Labels {
		if name == "" || strings.HasPrefix(name, labelPrefix) {
			return release.Invalid("container.labels", "%q cannot be set: names beginning with %s are QuicFlow's own", name, labelPrefix)
		}
	}
	if s.WorkDir != "" && !path.IsAbs(s.WorkDir) {
		return release.Invalid("container.work_dir", "%q is not an absolute path", s.WorkDir)
	}
	return nil
}

func (b *builder) restart() error {
	r := b.spec.Restart
	if r == nil {
		r = &release.RestartPolicy{Name: string(container.RestartPolicyUnlessStopped)}
	}
	b.w.host.RestartPolicy = container.RestartPolicy{Name: container.RestartPolicyMode(r.Name), MaximumRetryCount: r.MaxRetries}
	if err := container.ValidateRestartPolicy(b.w.host.RestartPolicy); err != nil || r.Name == "" {
		return release.Invalid("container.restart", "%q with %d retries is not a policy: no, always, unless-stopped, or on-failure, which alone knows retries",
			r.Name, r.MaxRetries)
	}
	return nil
}

func (b *builder) ports() error {
	s := b.spec
	if len(s.Ports) > 0 && (s.Network == "host" || s.Network == "none" || strings.HasPrefix(s.Network, "container:")) {
		return release.Invalid("container.ports", "no port can be published with network_mode %s", s.Network)
	}
	for i, p := range s.Ports {
		field := fmt.Sprintf("container.ports[%d]", i)
		if p.Container < 1 || p.Container > math.MaxUint16 || p.Host < 0 || p.Host > math.MaxUint16 {
			return release.Invalid(field, "ports are between 1 and 65535")
		}
		protocol := network.TCP
		switch {
		case p.Protocol == "udp" || p.Protocol == "sctp":
			protocol = network.IPProtocol(p.Protocol)
		case p.Protocol != "" && p.Protocol != "tcp":
			return release.Invalid(field+".protocol", "%q is neither tcp nor udp nor sctp", p.Protocol)
		}
		binding := network.PortBinding{}
		if p.HostIP != "" {
			address, err := netip.ParseAddr(p.HostIP)
			if err != nil {
				return release.Invalid(field+".host_ip", "%q is not an address", p.HostIP)
			}
			binding.HostIP = address
		}
		if p.Host > 0 {
			binding.HostPort = strconv.Itoa(p.Host)
		}
		port, _ := network.PortFrom(uint16(p.Container), protocol)
		if b.w.host.PortBindings == nil {
			b.w.host.PortBindings, b.w.config.ExposedPorts = network.PortMap{}, network.PortSet{}
		}
		b.w.host.PortBindings[port] = append(b.w.host.PortBindings[port], binding)
		b.w.config.ExposedPorts[port] = struct{}{}
	}
	return nil
}

func (b *builder) network() error {
	s := b.spec
	if s.Network != "" && len(s.Networks) > 0 {
		return release.Invalid("container.networks", "give either networks or network_mode")
	}
	for i, n := range s.Networks {
		field := fmt.Sprintf("container.networks[%d]", i)
		if n.Name == "" || slices.Contains([]string{"host", "none"}, n.Name) || strings.Contains(n.Name, ":") {
			return release.Invalid(field+".name", "%q is not a network to join; there is network_mode", n.Name)
		}
		if slices.ContainsFunc(b.w.networks, func(e endpoint) bool { return e.name == n.Name }) {
			return release.Invalid(field+".name", "%q is listed twice", n.Name)
		}
		settings := &network.EndpointSettings{Aliases: n.Aliases}
		for _, fixed := range []struct {
			field, text string
			v4          bool
		}{{"ipv4", n.IPv4, true}, {"ipv6", n.IPv6, false}} {
			if fixed.text == "" {
				continue
			}
			address, err := netip.ParseAddr(fixed.text)
			if err != nil || address.Is4() != fixed.v4 {
				return release.Invalid(field+"."+fixed.field, "%q is not such an address", fixed.text)
			}
			if settings.IPAMConfig == nil {
				settings.IPAMConfig = &network.EndpointIPAMConfig{}
			}
			if fixed.v4 {
				settings.IPAMConfig.IPv4Address = address
			} else {
				settings.IPAMConfig.IPv6Address = address
			}
		}
		b.w.networks = append(b.w.networks, endpoint{n.Name, settings})
	}
	if len(b.w.networks) > 0 {
		b.w.host.NetworkMode = container.NetworkMode(b.w.networks[0].name)
	}
	return nil
}

func (b *builder) addresses() error {
	s := b.spec
	for i, text := range s.DNS {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return release.Invalid(fmt.Sprintf("container.dns[%d]", i), "%q is not an address", text)
		}
		b.w.host.DNS = append(b.w.host.DNS, address)
	}
	for _, name := range slices.Sorted(maps.Keys(s.ExtraHosts)) {
		address := s.ExtraHosts[name]
		if address != "host-gateway" && net.ParseIP(address) == nil || name == "" || strings.ContainsAny(name, ": \t") {
			return release.Invalid("container.extra_hosts", "%q: %q is not the name of a host and its address", name, address)
		}
		b.w.host.ExtraHosts = append(b.w.host.ExtraHosts, name+":"+address)
	}
	return nil
}

func (b *builder) volumes() error {
	for i, v := range b.spec.Volumes {
		field := fmt.Sprintf("container.volumes[%d]", i)
		kind := mount.Type(v.Type)
		if kind == "" {
			kind = mount.TypeVolume
			if path.IsAbs(v.Source) {
				kind = mount.TypeBind
			}
		}
		m := mount.Mount{Type: kind, Source: v.Source, Target: v.Target, ReadOnly: v.ReadOnly}
		switch {
		case !path.IsAbs(v.Target):
			return release.Invalid(field+".target", "%q is not an absolute path", v.Target)
		case kind == mount.TypeBind && !path.IsAbs(v.Source):
			return release.Invalid(field+".source", "%q is not an absolute path of the host", v.Source)
		case kind == mount.TypeBind && v.NoCopy:
			return release.Invalid(field+".no_copy", "nothing is copied to a path of the host")
		case kind == mount.TypeVolume && v.Propagation != "":
			return release.Invalid(field+".propagation", "only a path of the host has it")
		case kind == mount.TypeVolume && v.Create:
			return release.Invalid(field+".create", "only for a path of the host; a volume is always made")
		case kind == mount.TypeBind && v.Create:
			// Engines before API 1.42 know no other way.
			if strings.Contains(v.Source+v.Target, ":") {
				return release.Invalid(field+".create", "not with a colon in a path")
			}
			options := []string{"rw"}
			if v.ReadOnly {
				options[0] = "ro"
			}
			if v.Propagation != "" {
				options = append(options, v.Propagation)
			}
			b.w.host.Binds = append(b.w.host.Binds, v.Source+":"+v.Target+":"+strings.Join(options, ","))
			continue
		case kind == mount.TypeBind && v.Propagation != "":
			m.BindOptions = &mount.BindOptions{Propagation: mount.Propagation(v.Propagation)}
		case kind == mount.TypeVolume && v.NoCopy:
			m.VolumeOptions = &mount.VolumeOptions{NoCopy: true}
		case kind != mount.TypeBind && kind != mount.TypeVolume:
			return release.Invalid(field+".type", "%q is neither bind nor volume", v.Type)
		}
		b.w.host.Mounts = append(b.w.host.Mounts, m)
	}
	for target := range b.spec.Tmpfs {
		if !path.IsAbs(target) {
			return release.Invalid("container.tmpfs", "%q is not an absolute path", target)
		}
	}
	return nil
}

func (b *builder) devices() error {
	s := b.spec
	for i, d := range s.Devices {
		if !path.IsAbs(d.Host) {
			return release.Invalid(fmt.Sprintf("container.devices[%d].host", i), "%q is not an absolute path", d.Host)
		}
		mapping := container.DeviceMapping{PathOnHost: d.Host, PathInContainer: d.Container, CgroupPermissions: d.Permissions}
		if mapping.PathInContainer == "" {
			mapping.PathInContainer = d.Host
		}
		if mapping.CgroupPermissions == "" {
			mapping.CgroupPermissions = "rwm"
		}
		b.w.host.Devices = append(b.w.host.Devices, mapping)
	}
	if s.GPUs == "" {
		return nil
	}
	request := container.DeviceRequest{Capabilities: [][]string{{"gpu"}}}
	count, err := strconv.Atoi(s.GPUs)
	ids, named := strings.CutPrefix(s.GPUs, "device=")
	switch {
	case s.GPUs == "all":
		request.Count = -1
	case named && ids != "":
		request.DeviceIDs = strings.Split(ids, ",")
	case err == nil && count > 0:
		request.Count = count
	default:
		return release.Invalid("container.gpus", "%q is neither all nor a number nor device=ID,ID", s.GPUs)
	}
	b.w.host.DeviceRequests = []container.DeviceRequest{request}
	return nil
}

func (b *builder) limits() error {
	for _, name := range slices.Sorted(maps.Keys(b.spec.Ulimits)) {
		limit := b.spec.Ulimits[name]
		if limit.Hard == 0 {
			limit.Hard = limit.Soft
		}
		if limit.Soft > limit.Hard && limit.Hard != -1 || limit.Soft == -1 && limit.Hard != -1 {
			return release.Invalid("container.ulimits."+name, "the soft limit is above the hard one")
		}
		b.w.host.Ulimits = append(b.w.host.Ulimits, &container.Ulimit{Name: name, Soft: limit.Soft, Hard: limit.Hard})
	}
	return nil
}

func (b *builder) resources() error {
	r := b.spec.Resources
	if r == nil {
		return nil
	}
	into := &b.w.host.Resources
	into.Memory, into.MemoryReservation = int64(r.Memory), int64(r.MemoryReservation)
	into.CPUShares, into.CpusetCpus = r.CPUShares, r.Cpuset
	into.NanoCPUs = int64(math.Round(r.CPUs * 1e9))
	if r.Pids > 0 {
		into.PidsLimit = &r.Pids
	}
	if r.BlkioWeight < 0 || r.BlkioWeight > 1000 {
		return release.Invalid("container.resources.blkio_weight", "%d is not between 10 and 1000", r.BlkioWeight)
	}
	into.BlkioWeight = uint16(r.BlkioWeight)
	switch r.MemorySwap {
	case "":
	case "-1":
		into.MemorySwap = -1
	default:
		var size release.Bytes
		if err := size.UnmarshalText([]byte(r.MemorySwap)); err != nil {
			return release.Invalid("container.resources.memory_swap", "%v", err)
		}
		into.MemorySwap = int64(size)
	}
	return nil
}

func (b *builder) health() error {
	h := b.spec.HealthCheck
	if h == nil {
		return nil
	}
	set := 0
	for _, is := range []bool{len(h.Test) > 0, h.Shell != "", h.Disable} {
		if is {
			set++
		}
	}
	if set > 1 {
		return release.Invalid("container.health_check", "wants one of test, shell and disable")
	}
	config := &container.HealthConfig{
		Interval: h.Interval.Std(), Timeout: h.Timeout.Std(), StartPeriod: h.StartPeriod.Std(), StartInterval: h.StartInterval.Std(), Retries: h.Retries,
	}
	switch {
	case h.Disable:
		config = &container.HealthConfig{Test: []string{"NONE"}}
	case len(h.Test) > 0:
		config.Test = append([]string{"CMD"}, h.Test...)
	case h.Shell != "":
		config.Test = []string{"CMD-SHELL", h.Shell}
	}
	for name, d := range map[string]time.Duration{
		"interval": config.Interval, "timeout": config.Timeout, "start_period": config.StartPeriod, "start_interval": config.StartInterval,
	} {
		if d != 0 && d < container.MinimumDuration {
			return release.Invalid("container.health_check."+name, "%s is shorter than %s", d, container.MinimumDuration)
		}
	}
	if config.StartInterval > 0 {
		b.w.needs = append(b.w.needs, need{"health_check.start_interval", "1.44"})
	}
	b.w.config.Healthcheck = config
	return nil
}
