package release

// ContainerSpec is the configuration of a container project. Its fields are those of the Docker Engine API.
type ContainerSpec struct {
	// What runs.
	Image      string            `json:"image,omitempty" layer:"p" group:"image" doc:"Repository, without tag" example:"registry.example.com/team/app"`
	ImageTag   string            `json:"image_tag,omitempty" layer:"pvt" doc:"Tag, or digest (sha256:…). A version must have one" example:"1.4.2"`
	Registry   *RegistryAuth     `json:"registry,omitempty" layer:"p" doc:"Login for the image's registry. Defaults to none"`
	PullPolicy string            `json:"pull_policy,omitempty" enum:"always,missing,never," layer:"p" doc:"Defaults to always, and to missing for a digest"`
	Platform   string            `json:"platform,omitempty" layer:"p" doc:"Such as linux/arm64. Defaults to the engine's own" example:"linux/amd64"`
	Entrypoint []string          `json:"entrypoint,omitempty" layer:"pv" doc:"Instead of the image's"`
	Command    []string          `json:"command,omitempty" layer:"pv" doc:"Instead of the image's"`
	Env        map[string]string `json:"env,omitempty" layer:"pvt" merge:"keys" doc:"Environment of the container, beside QUICFLOW_…"`
	User       string            `json:"user,omitempty" layer:"pv" doc:"User or uid, with group or gid after a colon. Defaults to the image's"`
	WorkDir    string            `json:"work_dir,omitempty" layer:"pv" doc:"Within the container. Defaults to the image's"`
	Labels     map[string]string `json:"labels,omitempty" layer:"pv" merge:"keys" doc:"Of the container; those below quicflow. are QuicFlow's own"`

	// Where it runs.
	Name       string             `json:"name,omitempty" layer:"p" group:"network" doc:"Of the container. Defaults to the project's" example:"${QUICFLOW_PROJECT}-${QUICFLOW_ENVIRONMENT}"`
	Hostname   string             `json:"hostname,omitempty" layer:"p" doc:"Defaults to the engine's choice"`
	Domainname string             `json:"domainname,omitempty" layer:"p"`
	Ports      []Port             `json:"ports,omitempty" layer:"p" doc:"Published on the host"`
	Networks   []ContainerNetwork `json:"networks,omitempty" layer:"p" doc:"Existing networks to join. Defaults to bridge"`
	Network    string             `json:"network_mode,omitempty" layer:"p" doc:"host, none, bridge or container:NAME, instead of networks"`
	DNS        []string           `json:"dns,omitempty" layer:"p" doc:"Addresses of name servers"`
	DNSSearch  []string           `json:"dns_search,omitempty" layer:"p"`
	DNSOptions []string           `json:"dns_options,omitempty" layer:"p"`
	ExtraHosts map[string]string  `json:"extra_hosts,omitempty" layer:"p" merge:"keys" doc:"Address by host name; host-gateway is the host's"`
	Volumes    []Volume           `json:"volumes,omitempty" layer:"p" group:"storage"`
	Tmpfs      map[string]string  `json:"tmpfs,omitempty" layer:"p" merge:"keys" doc:"Mount options by path" example:"{\"/tmp\":\"size=64m\"}"`
	ShmSize    Bytes              `json:"shm_size,omitempty" layer:"p" doc:"Of /dev/shm. Defaults to the engine's 64m"`

	// What it may do.
	Privileged   bool              `json:"privileged,omitempty" layer:"p" group:"rights"`
	CapAdd       []string          `json:"cap_add,omitempty" layer:"p"`
	CapDrop      []string          `json:"cap_drop,omitempty" layer:"p"`
	SecurityOpt  []string          `json:"security_opt,omitempty" layer:"p" example:"[\"no-new-privileges\"]"`
	ReadOnly     bool              `json:"read_only,omitempty" layer:"p" doc:"The root file system cannot be written to"`
	Devices      []Device          `json:"devices,omitempty" layer:"p"`
	GPUs         string            `json:"gpus,omitempty" layer:"p" doc:"all, a number, or device=ID,ID"`
	Ulimits      map[string]Ulimit `json:"ulimits,omitempty" layer:"p" merge:"keys" doc:"By name, such as nofile"`
	Sysctls      map[string]string `json:"sysctls,omitempty" layer:"p" merge:"keys"`
	GroupAdd     []string          `json:"group_add,omitempty" layer:"p" doc:"Further groups of the user"`
	PidMode      string            `json:"pid_mode,omitempty" layer:"p" doc:"host or container:NAME"`
	IpcMode      string            `json:"ipc_mode,omitempty" layer:"p" doc:"none, private, shareable, host or container:NAME"`
	UsernsMode   string            `json:"userns_mode,omitempty" layer:"p" doc:"host, to leave the engine's user namespace"`
	CgroupParent string            `json:"cgroup_parent,omitempty" layer:"p"`
	Runtime      string            `json:"runtime,omitempty" layer:"p" doc:"Of the engine, such as runc. Defaults to its own choice"`
	OomScoreAdj  int               `json:"oom_score_adj,omitempty" minimum:"-1000" maximum:"1000" layer:"p"`

	// What it may use.
	Resources *ContainerResources `json:"resources,omitempty" layer:"pvt" group:"resources" merge:"fields"`

	// How it lives.
	HealthCheck *ContainerHealth `json:"health_check,omitempty" layer:"pv" group:"life" doc:"By the engine, within the container. A version's replaces the project's as a whole. Defaults to the image's"`
	Restart     *RestartPolicy   `json:"restart,omitempty" layer:"p" doc:"Defaults to unless-stopped"`
	StopSignal  string           `json:"stop_signal,omitempty" layer:"pv" doc:"Defaults to the image's, or SIGTERM"`
	StopTimeout Duration         `json:"stop_timeout,omitempty" layer:"pv" doc:"Until it is killed. Defaults to 10s"`
	Init        bool             `json:"init,omitempty" layer:"p" doc:"Runs an init process that reaps the others"`
	Log         *ContainerLog    `json:"log,omitempty" layer:"p" doc:"Defaults to the engine's own"`

	// How it changes.
	Update      string            `json:"update,omitempty" enum:"auto,beside,after," layer:"pv" group:"change" doc:"Whether the new container starts beside the old one, or after it was stopped. Defaults to auto: beside, unless both want a port, an address or a name for themselves"`
	Settle      Duration          `json:"settle,omitempty" layer:"pv" doc:"How long a container without any health check has to run to count as started. Defaults to 2s"`
	KeepOld     *int              `json:"keep_old,omitempty" minimum:"0" maximum:"20" layer:"pv" doc:"Stopped containers of earlier versions to keep for a rollback. Defaults to 1"`
	Timeout     Duration          `json:"timeout,omitempty" layer:"pvt" doc:"For the whole step. Defaults to 10m"`
	Interpreter string            `json:"interpreter,omitempty" layer:"pv" group:"scripts" doc:"Program that runs pre_script and post_script on the host. Defaults to /bin/sh"`
	PreScript   string            `json:"pre_script,omitempty" layer:"pv" expand:"no" doc:"Runs on the host before the image is pulled. A version's replaces the project's" format:"script"`
	PostScript  string            `json:"post_script,omitempty" layer:"pv" expand:"no" doc:"Runs on the host when the new container is healthy; if it fails, the old one comes back. A version's replaces the project's" format:"script"`
	Health      *Health           `json:"health,omitempty" layer:"pv" expand:"no" doc:"Check by the agent, from the host, after the engine's. A version's replaces the project's as a whole"`
	Annotations map[string]string `json:"annotations,omitempty" layer:"p" group:"rights" merge:"keys" doc:"Passed to the runtime"`
}

// RegistryAuth is a login for an image registry. Give secrets as ${NAME} of a secret variable.
type RegistryAuth struct {
	Server   string `json:"server,omitempty" doc:"Defaults to the image's"`
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty" doc:"Or an access token" example:"${REGISTRY_PASSWORD}"`
}

// Port is a port of a container that is published on its host.
type Port struct {
	Container int    `json:"container" minimum:"1" maximum:"65535" doc:"Port within the container"`
	Host      int    `json:"host,omitempty" minimum:"0" maximum:"65535" doc:"Port of the host. Defaults to one that is free"`
	HostIP    string `json:"host_ip,omitempty" doc:"Address of the host. Defaults to all"`
	Protocol  string `json:"protocol,omitempty" enum:"tcp,udp,sctp," doc:"Defaults to tcp"`
}

// ContainerNetwork is a network of the engine that a container joins.
type ContainerNetwork struct {
	Name    string   `json:"name"`
	Aliases []string `json:"aliases,omitempty" doc:"Further names of the container on it"`
	IPv4    string   `json:"ipv4,omitempty" doc:"Fixed address"`
	IPv6    string   `json:"ipv6,omitempty" doc:"Fixed address"`
}

// Volume is a directory that a container sees.
type Volume struct {
	Type        string `json:"type,omitempty" enum:"bind,volume," doc:"A path of the host, or a named volume of the engine. Defaults to bind for an absolute source"`
	Source      string `json:"source,omitempty" doc:"Path or name. Left out: a volume without a name"`
	Target      string `json:"target" doc:"Path within the container"`
	ReadOnly    bool   `json:"read_only,omitempty"`
	Create      bool   `json:"create,omitempty" doc:"Make a missing path of the host"`
	Propagation string `json:"propagation,omitempty" enum:"private,rprivate,shared,rshared,slave,rslave,"`
	NoCopy      bool   `json:"no_copy,omitempty" doc:"A new volume does not get what the image has there"`
}

// Device is a device of the host that a container sees.
type Device struct {
	Host        string `json:"host" example:"/dev/fuse"`
	Container   string `json:"container,omitempty" doc:"Defaults to the same path"`
	Permissions string `json:"permissions,omitempty" pattern:"^[rwm]{0,3}$" doc:"Defaults to rwm"`
}

// Ulimit is a limit of each of a container's processes.
type Ulimit struct {
	Soft int64 `json:"soft"`
	Hard int64 `json:"hard,omitempty" doc:"Defaults to soft"`
}

// ContainerResources bound what a container may use.
type ContainerResources struct {
	Memory            Bytes   `json:"memory,omitempty" doc:"Such as 512m"`
	MemoryReservation Bytes   `json:"memory_reservation,omitempty"`
	MemorySwap        string  `json:"memory_swap,omitempty" doc:"Memory and swap together, such as 1g; -1 is without limit"`
	CPUs              float64 `json:"cpus,omitempty" minimum:"0" doc:"Such as 1.5"`
	CPUShares         int64   `json:"cpu_shares,omitempty" minimum:"0"`
	Cpuset            string  `json:"cpuset,omitempty" doc:"Such as 0-3,5"`
	Pids              int64   `json:"pids,omitempty" minimum:"0" doc:"Processes"`
	BlkioWeight       int     `json:"blkio_weight,omitempty" minimum:"0" maximum:"1000"`
}

// ContainerHealth is the engine's own check of a container.
type ContainerHealth struct {
	Test          []string `json:"test,omitempty" doc:"Command, without a shell" example:"[\"curl\",\"-f\",\"http://localhost/\"]"`
	Shell         string   `json:"shell,omitempty" doc:"Line for the container's shell, instead of test"`
	Disable       bool     `json:"disable,omitempty" doc:"Do without the image's check"`
	Interval      Duration `json:"interval,omitempty" doc:"Defaults to the engine's 30s"`
	Timeout       Duration `json:"timeout,omitempty" doc:"Defaults to the engine's 30s"`
	StartPeriod   Duration `json:"start_period,omitempty"`
	StartInterval Duration `json:"start_interval,omitempty" doc:"Within the start period; engines before 25 refuse it"`
	Retries       int      `json:"retries,omitempty" minimum:"0" doc:"Defaults to the engine's 3"`
}

// RestartPolicy is what the engine does when a container ends.
type RestartPolicy struct {
	Name       string `json:"name" enum:"no,always,unless-stopped,on-failure"`
	MaxRetries int    `json:"max_retries,omitempty" minimum:"0" doc:"Of on-failure"`
}

// ContainerLog is where a container's output goes.
type ContainerLog struct {
	Driver  string            `json:"driver" example:"json-file"`
	Options map[string]string `json:"options,omitempty"`
}

func (s *ContainerSpec) fillDefaults(filled func(path string), _ Version) {
	d := defaulter{filled}
	byDefault(d, "name", &s.Name, "${QUICFLOW_PROJECT}")
	byDefault(d, "interpreter", &s.Interpreter, DefaultInterpreter)
	byDefault(d, "timeout", &s.Timeout, Duration(DefaultStepTimeout))
	byDefault(d, "update", &s.Update, "auto")
	byDefault(d, "settle", &s.Settle, Duration(DefaultSettle))
	byDefault(d, "stop_timeout", &s.StopTimeout, Duration(DefaultStopTimeout))
	if s.Restart == nil {
		s.Restart = &RestartPolicy{Name: "unless-stopped"}
		filled("restart")
	}
	if s.KeepOld == nil {
		one := 1
		s.KeepOld = &one
		filled("keep_old")
	}
	s.Health = s.Health.filled()
}
