package release

// KubernetesSpec is the configuration of a Kubernetes project: one workload, with a Service where it is asked for, made from these
// fields, or whatever the manifest says.
type KubernetesSpec struct {
	// The cluster, as the agent's host reaches it.
	Kubeconfig      string `json:"kubeconfig,omitempty" layer:"p" group:"cluster" doc:"Path on the agent's host. Defaults to KUBECONFIG of the agent, else to the pod's own account within a cluster, else to ~/.kube/config"`
	Context         string `json:"context,omitempty" layer:"p" doc:"Of the kubeconfig. Defaults to its current one"`
	Namespace       string `json:"namespace,omitempty" layer:"p" doc:"Defaults to the context's, or default" example:"shop-${QUICFLOW_ENVIRONMENT}"`
	CreateNamespace bool   `json:"create_namespace,omitempty" layer:"p" doc:"Make the namespace where it is missing; an uninstall leaves it"`

	// The workload.
	Kind           string            `json:"kind,omitempty" enum:"Deployment,StatefulSet,DaemonSet," layer:"p" group:"workload" doc:"Defaults to Deployment"`
	Name           string            `json:"name,omitempty" layer:"p" doc:"Of the workload, its container and its Service. Defaults to the project's"`
	Image          string            `json:"image,omitempty" layer:"p" doc:"Repository, without tag" example:"registry.example.com/team/app"`
	ImageTag       string            `json:"image_tag,omitempty" layer:"pvt" doc:"Tag, or digest (sha256:…). A version without a manifest must have one"`
	PullPolicy     string            `json:"pull_policy,omitempty" enum:"Always,IfNotPresent,Never," layer:"p"`
	PullSecret     string            `json:"pull_secret,omitempty" layer:"p" doc:"Name of an existing Secret for the image's registry"`
	Registry       *RegistryAuth     `json:"registry,omitempty" layer:"p" doc:"Login for the image's registry: a pull Secret NAME-registry is made from it"`
	Replicas       *int              `json:"replicas,omitempty" minimum:"0" layer:"pvt" doc:"Left out: not managed, as where an autoscaler does; new workloads get 1"`
	Command        []string          `json:"command,omitempty" layer:"pv" doc:"Instead of the image's entrypoint"`
	Args           []string          `json:"args,omitempty" layer:"pv" doc:"Instead of the image's command"`
	Env            map[string]string `json:"env,omitempty" layer:"pvt" merge:"keys" doc:"Environment of the container, beside QUICFLOW_…"`
	EnvFrom        []KubeEnvFrom     `json:"env_from,omitempty" layer:"pv" doc:"Existing ConfigMaps and Secrets whose keys become environment"`
	Ports          []KubePort        `json:"ports,omitempty" layer:"p" group:"network" doc:"Of the container"`
	Service        *KubeService      `json:"service,omitempty" layer:"p" doc:"Leads to the pods. Left out: none"`
	Volumes        []KubeVolume      `json:"volumes,omitempty" layer:"p" group:"storage"`
	Resources      *KubeResources    `json:"resources,omitempty" layer:"pvt" group:"resources" merge:"fields"`
	Labels         map[string]string `json:"labels,omitempty" layer:"pv" group:"labels" merge:"keys" doc:"Of the workload and its pods, beside app.kubernetes.io/…"`
	Annotations    map[string]string `json:"annotations,omitempty" layer:"pv" merge:"keys" doc:"Of the workload"`
	PodAnnotations map[string]string `json:"pod_annotations,omitempty" layer:"pv" merge:"keys"`
	ServiceAccount string            `json:"service_account,omitempty" layer:"p" group:"placement"`
	NodeSelector   map[string]string `json:"node_selector,omitempty" layer:"p" merge:"keys"`
	Tolerations    []KubeToleration  `json:"tolerations,omitempty" layer:"p"`
	HostNetwork    bool              `json:"host_network,omitempty" layer:"p"`
	Security       *KubeSecurity     `json:"security,omitempty" layer:"p" group:"rights"`
	Liveness       *KubeProbe        `json:"liveness,omitempty" layer:"pv" group:"life" doc:"A version's replaces the project's as a whole"`
	Readiness      *KubeProbe        `json:"readiness,omitempty" layer:"pv" doc:"A version's replaces the project's as a whole"`
	Startup        *KubeProbe        `json:"startup,omitempty" layer:"pv" doc:"A version's replaces the project's as a whole"`
	MaxSurge       string            `json:"max_surge,omitempty" layer:"pv" group:"change" doc:"Of a rolling update: count or percentage" example:"25%"`
	MaxUnavailable string            `json:"max_unavailable,omitempty" layer:"pv" doc:"Of a rolling update: count or percentage" example:"0"`
	Recreate       bool              `json:"recreate,omitempty" layer:"p" doc:"A Deployment stops its old pods before it starts new ones"`
	MinReady       Duration          `json:"min_ready,omitempty" layer:"pv" doc:"How long a pod must be ready to count"`
	GracePeriod    Duration          `json:"grace_period,omitempty" layer:"pv" doc:"Of a pod that is stopped. Defaults to the cluster's 30s"`
	ServiceName    string            `json:"service_name,omitempty" layer:"p" group:"network" doc:"Of a StatefulSet. Defaults to its own name"`
	Claims         []KubeClaim       `json:"claims,omitempty" layer:"p" group:"storage" doc:"Of a StatefulSet: a volume for each pod"`
	History        *int              `json:"history,omitempty" minimum:"0" layer:"p" group:"change" doc:"Old revisions the cluster keeps. Defaults to 10"`

	// Or your own.
	Manifest string      `json:"manifest,omitempty" layer:"pv" group:"manifest" doc:"YAML of one or more objects, instead of all fields of the workload. A version's replaces the project's" format:"yaml"`
	Patches  []KubePatch `json:"patches,omitempty" layer:"pv" doc:"Applied in turn to what was generated, or to the manifest. A version's replace the project's"`

	// How it is applied.
	Force       bool     `json:"force,omitempty" layer:"p" group:"apply" doc:"Take fields over that other managers own. Left out: such conflicts fail the step"`
	Deadline    Duration `json:"deadline,omitempty" layer:"pv" doc:"For the rollout to be ready. Defaults to 5m"`
	Timeout     Duration `json:"timeout,omitempty" layer:"pvt" doc:"For the whole step. Defaults to 10m"`
	Interpreter string   `json:"interpreter,omitempty" layer:"pv" group:"scripts" doc:"Program that runs pre_script and post_script on the agent's host. Defaults to /bin/sh"`
	PreScript   string   `json:"pre_script,omitempty" layer:"pv" expand:"no" doc:"Runs on the agent's host before anything is applied. A version's replaces the project's" format:"script"`
	PostScript  string   `json:"post_script,omitempty" layer:"pv" expand:"no" doc:"Runs on the agent's host when the rollout is ready. A version's replaces the project's" format:"script"`
	Health      *Health  `json:"health,omitempty" layer:"pv" expand:"no" doc:"Check by the agent after the rollout. A version's replaces the project's as a whole"`
}

// KubePort is a port of the container.
type KubePort struct {
	Name     string `json:"name,omitempty" doc:"Needed where there are several"`
	Port     int    `json:"port" minimum:"1" maximum:"65535"`
	Protocol string `json:"protocol,omitempty" enum:"TCP,UDP,SCTP," doc:"Defaults to TCP"`
	HostPort int    `json:"host_port,omitempty" minimum:"0" maximum:"65535"`
}

// KubeService is a Service that leads to the pods.
type KubeService struct {
	Type        string            `json:"type,omitempty" enum:"ClusterIP,NodePort,LoadBalancer,Headless," doc:"Defaults to ClusterIP"`
	Ports       []KubeServicePort `json:"ports,omitempty" doc:"Defaults to the container's"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// KubeServicePort is a port of a Service.
type KubeServicePort struct {
	Name     string `json:"name,omitempty" doc:"Needed where there are several"`
	Port     int    `json:"port" minimum:"1" maximum:"65535"`
	Target   string `json:"target,omitempty" doc:"Number or name of the container's port. Defaults to the same number"`
	NodePort int    `json:"node_port,omitempty" minimum:"0" maximum:"65535"`
	Protocol string `json:"protocol,omitempty" enum:"TCP,UDP,SCTP," doc:"Defaults to TCP"`
}

// KubeEnvFrom is an existing object whose keys become environment: one of the two.
type KubeEnvFrom struct {
	ConfigMap string `json:"config_map,omitempty"`
	Secret    string `json:"secret,omitempty"`
	Prefix    string `json:"prefix,omitempty"`
	Optional  bool   `json:"optional,omitempty"`
}

// KubeVolume is a volume and where the container sees it: one of the sources.
type KubeVolume struct {
	Name      string `json:"name"`
	MountPath string `json:"mount_path"`
	SubPath   string `json:"sub_path,omitempty"`
	ReadOnly  bool   `json:"read_only,omitempty"`
	ConfigMap string `json:"config_map,omitempty"`
	Secret    string `json:"secret,omitempty"`
	Claim     string `json:"claim,omitempty" doc:"An existing PersistentVolumeClaim"`
	HostPath  string `json:"host_path,omitempty"`
	EmptyDir  bool   `json:"empty_dir,omitempty"`
	SizeLimit string `json:"size_limit,omitempty" doc:"Of an empty_dir" example:"1Gi"`
}

// KubeClaim is a volume that each pod of a StatefulSet gets for itself.
type KubeClaim struct {
	Name         string   `json:"name"`
	MountPath    string   `json:"mount_path"`
	Size         string   `json:"size" example:"10Gi"`
	StorageClass string   `json:"storage_class,omitempty"`
	AccessModes  []string `json:"access_modes,omitempty" doc:"Defaults to ReadWriteOnce"`
}

// KubeResources are requests and limits by resource, in Kubernetes' quantities.
type KubeResources struct {
	Requests map[string]string `json:"requests,omitempty" merge:"keys" example:"{\"cpu\":\"250m\",\"memory\":\"256Mi\"}"`
	Limits   map[string]string `json:"limits,omitempty" merge:"keys" example:"{\"memory\":\"512Mi\"}"`
}

// KubeToleration lets pods onto tainted nodes.
type KubeToleration struct {
	Key      string `json:"key,omitempty"`
	Operator string `json:"operator,omitempty" enum:"Exists,Equal,"`
	Value    string `json:"value,omitempty"`
	Effect   string `json:"effect,omitempty" enum:"NoSchedule,PreferNoSchedule,NoExecute,"`
	Seconds  *int64 `json:"seconds,omitempty" doc:"Of NoExecute"`
}

// KubeSecurity is what pods and their container may do.
type KubeSecurity struct {
	RunAsUser                *int64   `json:"run_as_user,omitempty"`
	RunAsGroup               *int64   `json:"run_as_group,omitempty"`
	FSGroup                  *int64   `json:"fs_group,omitempty"`
	RunAsNonRoot             *bool    `json:"run_as_non_root,omitempty"`
	Privileged               *bool    `json:"privileged,omitempty"`
	AllowPrivilegeEscalation *bool    `json:"allow_privilege_escalation,omitempty"`
	ReadOnlyRootFilesystem   *bool    `json:"read_only_root_filesystem,omitempty"`
	CapAdd                   []string `json:"cap_add,omitempty"`
	CapDrop                  []string `json:"cap_drop,omitempty"`
	SeccompProfile           string   `json:"seccomp_profile,omitempty" enum:"RuntimeDefault,Unconfined,"`
}

// KubeProbe is a check of the container by the cluster: exactly one of http_path, tcp_port, exec and grpc_port.
type KubeProbe struct {
	HTTPPath         string   `json:"http_path,omitempty" example:"/ready"`
	HTTPPort         string   `json:"http_port,omitempty" doc:"Number or name. Defaults to the first port"`
	HTTPScheme       string   `json:"http_scheme,omitempty" enum:"HTTP,HTTPS,"`
	TCPPort          string   `json:"tcp_port,omitempty" doc:"Number or name"`
	GRPCPort         int      `json:"grpc_port,omitempty" minimum:"0" maximum:"65535"`
	Exec             []string `json:"exec,omitempty"`
	InitialDelay     Duration `json:"initial_delay,omitempty"`
	Period           Duration `json:"period,omitempty"`
	Timeout          Duration `json:"timeout,omitempty"`
	SuccessThreshold int      `json:"success_threshold,omitempty" minimum:"0"`
	FailureThreshold int      `json:"failure_threshold,omitempty" minimum:"0"`
}

// KubePatch changes an object before it is applied.
type KubePatch struct {
	Kind  string `json:"kind,omitempty" doc:"Of the object. Defaults to the workload's"`
	Name  string `json:"name,omitempty" doc:"Of the object. Defaults to the only one of its kind"`
	Type  string `json:"type,omitempty" enum:"strategic,merge,json," doc:"Strategic merge patch, JSON merge patch, or a list of JSON patch operations. Defaults to strategic"`
	Patch string `json:"patch" doc:"YAML or JSON" format:"yaml"`
}

func (s *KubernetesSpec) fillDefaults(filled func(path string), _ Version) {
	d := defaulter{filled}
	byDefault(d, "interpreter", &s.Interpreter, DefaultInterpreter)
	byDefault(d, "timeout", &s.Timeout, Duration(DefaultStepTimeout))
	byDefault(d, "deadline", &s.Deadline, Duration(DefaultKubeDeadline))
	if s.Manifest == "" {
		byDefault(d, "kind", &s.Kind, "Deployment")
		byDefault(d, "name", &s.Name, "${QUICFLOW_PROJECT}")
	}
	s.Health = s.Health.filled()
}
