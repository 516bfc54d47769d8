package kubernetes

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	appsac "k8s.io/client-go/applyconfigurations/apps/v1"
	coreac "k8s.io/client-go/applyconfigurations/core/v1"
	metaac "k8s.io/client-go/applyconfigurations/meta/v1"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/release"
)

// defaultHistory is how many old revisions are kept, in the cluster and in the inventory.
const defaultHistory = 10

// generator makes the objects of a configuration without a manifest.
type generator struct {
	step *executor.Step
	spec *release.KubernetesSpec
	name string
}

func generate(step *executor.Step, spec *release.KubernetesSpec) ([]*object, error) {
	g := &generator{step: step, spec: spec, name: nameOf(step, spec)}
	if err := g.check(); err != nil {
		return nil, err
	}
	template, err := g.template()
	if err != nil {
		return nil, err
	}
	var workload any
	switch spec.Kind {
	case "StatefulSet":
		workload, err = g.statefulSet(template)
	case "DaemonSet":
		workload, err = g.daemonSet(template)
	default:
		workload, err = g.deployment(template)
	}
	if err != nil {
		return nil, err
	}
	o, err := toObject(workload)
	if err != nil {
		return nil, err
	}
	objects := []*object{o}
	if spec.Service != nil {
		service, err := g.service()
		if err != nil {
			return nil, err
		}
		objects = append(objects, service)
	}
	return objects, nil
}

// check refuses what would have no effect.
func (g *generator) check() error {
	s, kind := g.spec, g.spec.Kind
	if kind == "" {
		kind = "Deployment"
	}
	switch {
	case s.Image == "":
		return invalid("image", "it is missing, and so is a manifest")
	case s.ImageTag == "":
		return invalid("image_tag", "it is missing, and so is a manifest")
	case kind != "Deployment" && kind != "StatefulSet" && kind != "DaemonSet":
		return invalid("kind", "%q is none of Deployment, StatefulSet and DaemonSet", kind)
	case kind == "DaemonSet" && s.Replicas != nil:
		return invalid("replicas", "a DaemonSet has none: it has a pod on each node")
	case kind != "Deployment" && s.Recreate:
		return invalid("recreate", "it is for a Deployment, not a %s", kind)
	case s.Recreate && (s.MaxSurge != "" || s.MaxUnavailable != ""):
		return invalid("recreate", "max_surge and max_unavailable are for rolling updates")
	case kind == "StatefulSet" && s.MaxSurge != "":
		return invalid("max_surge", "a StatefulSet has none")
	case kind != "StatefulSet" && s.ServiceName != "":
		return invalid("service_name", "it is for a StatefulSet, not a %s", kind)
	case kind != "StatefulSet" && s.Claims != nil:
		return invalid("claims", "they are for a StatefulSet, not a %s", kind)
	}
	return nil
}

// selector has the labels by which the workload and the Service find the pods. They can never change.
func (g *generator) selector() map[string]string {
	return map[string]string{labelAppName: g.name, labelProject: g.step.Project}
}

// labels gives the user's labels, and those of the pods.
func (g *generator) labels() (map[string]string, error) {
	labels := maps.Clone(g.spec.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	own := g.selector()
	own[labelManaged], own[labelManagedBy] = "true", manager
	if isLabelValue(g.step.Version) {
		own[labelAppVersion] = g.step.Version
	}
	for name, value := range own {
		if _, there := labels[name]; there {
			return nil, invalid("labels."+name, "it is QuicFlow's own")
		}
		labels[name] = value
	}
	return labels, nil
}

func (g *generator) selectorConfig() *metaac.LabelSelectorApplyConfiguration {
	return metaac.LabelSelector().WithMatchLabels(g.selector())
}

func (g *generator) history() int32 {
	if g.spec.History != nil {
		return int32(*g.spec.History)
	}
	return defaultHistory
}

func (g *generator) deployment(template *coreac.PodTemplateSpecApplyConfiguration) (any, error) {
	labels, err := g.labels()
	if err != nil {
		return nil, err
	}
	s := g.spec
	spec := appsac.DeploymentSpec().WithSelector(g.selectorConfig()).WithTemplate(template).WithRevisionHistoryLimit(g.history())
	if s.Replicas != nil {
		spec.WithReplicas(int32(*s.Replicas))
	}
	if s.MinReady != 0 {
		spec.WithMinReadySeconds(seconds(s.MinReady))
	}
	if s.Deadline != 0 {
		spec.WithProgressDeadlineSeconds(seconds(s.Deadline))
	}
	switch {
	case s.Recreate:
		spec.WithStrategy(appsac.DeploymentStrategy().WithType(appsv1.RecreateDeploymentStrategyType))
	case s.MaxSurge != "" || s.MaxUnavailable != "":
		rolling := appsac.RollingUpdateDeployment()
		if s.MaxSurge != "" {
			rolling.WithMaxSurge(intstr.Parse(s.MaxSurge))
		}
		if s.MaxUnavailable != "" {
			rolling.WithMaxUnavailable(intstr.Parse(s.MaxUnavailable))
		}
		spec.WithStrategy(appsac.DeploymentStrategy().WithType(appsv1.RollingUpdateDeploymentStrategyType).WithRollingUpdate(rolling))
	}
	d := appsac.Deployment(g.name, "").WithLabels(labels).WithAnnotations(s.Annotations).WithSpec(spec)
	d.Namespace = nil
	return d, nil
}

func (g *generator) statefulSet(template *coreac.PodTemplateSpecApplyConfiguration) (any, error) {
	labels, err := g.labels()
	if err != nil {
		return nil, err
	}
	s := g.spec
	service := s.ServiceName
	if service == "" {
		service = g.name
	}
	spec := appsac.StatefulSetSpec().WithSelector(g.selectorConfig()).WithTemplate(template).WithRevisionHistoryLimit(g.history()).WithServiceName(service)
	if s.Replicas != nil {
		spec.WithReplicas(int32(*s.Replicas))
	}
	if s.MinReady != 0 {
		spec.WithMinReadySeconds(seconds(s.MinReady))
	}
	if s.MaxUnavailable != "" {
		spec.WithUpdateStrategy(appsac.StatefulSetUpdateStrategy().WithType(appsv1.RollingUpdateStatefulSetStrategyType).
			WithRollingUpdate(appsac.RollingUpdateStatefulSetStrategy().WithMaxUnavailable(intstr.Parse(s.MaxUnavailable))))
	}
	for i, c := range s.Claims {
		field := "claims[" + strconv.Itoa(i) + "]"
		size, err := resource.ParseQuantity(c.Size)
		if err != nil {
			return nil, invalid(field+".size", "%q is not a quantity such as 10Gi", c.Size)
		}
		modes := c.AccessModes
		if len(modes) == 0 {
			modes = []string{string(corev1.ReadWriteOnce)}
		}
		claim := coreac.PersistentVolumeClaimSpec().WithResources(coreac.VolumeResourceRequirements().WithRequests(corev1.ResourceList{corev1.ResourceStorage: size}))
		for _, mode := range modes {
			claim.WithAccessModes(corev1.PersistentVolumeAccessMode(mode))
		}
		if c.StorageClass != "" {
			claim.WithStorageClassName(c.StorageClass)
		}
		named := coreac.PersistentVolumeClaim(c.Name, "").WithSpec(claim)
		named.Namespace = nil
		spec.WithVolumeClaimTemplates(named)
	}
	set := appsac.StatefulSet(g.name, "").WithLabels(labels).WithAnnotations(s.Annotations).WithSpec(spec)
	set.Namespace = nil
	return set, nil
}

func (g *generator) daemonSet(template *coreac.PodTemplateSpecApplyConfiguration) (any, error) {
	labels, err := g.labels()
	if err != nil {
		return nil, err
	}
	s := g.spec
	spec := appsac.DaemonSetSpec().WithSelector(g.selectorConfig()).WithTemplate(template).WithRevisionHistoryLimit(g.history())
	if s.MinReady != 0 {
		spec.WithMinReadySeconds(seconds(s.MinReady))
	}
	if s.MaxSurge != "" || s.MaxUnavailable != "" {
		rolling := appsac.RollingUpdateDaemonSet()
		if s.MaxSurge != "" {
			rolling.WithMaxSurge(intstr.Parse(s.MaxSurge))
		}
		if s.MaxUnavailable != "" {
			rolling.WithMaxUnavailable(intstr.Parse(s.MaxUnavailable))
		}
		spec.WithUpdateStrategy(appsac.DaemonSetUpdateStrategy().WithType(appsv1.RollingUpdateDaemonSetStrategyType).WithRollingUpdate(rolling))
	}
	set := appsac.DaemonSet(g.name, "").WithLabels(labels).WithAnnotations(s.Annotations).WithSpec(spec)
	set.Namespace = nil
	return set, nil
}

func (g *generator) service() (*object, error) {
	s := g.spec.Service
	spec := coreac.ServiceSpec().WithSelector(g.selector())
	switch s.Type {
	case "", "ClusterIP", "NodePort", "LoadBalancer":
		if s.Type != "" {
			spec.WithType(corev1.ServiceType(s.Type))
		}
	case "Headless":
		spec.WithType(corev1.ServiceTypeClusterIP).WithClusterIP(corev1.ClusterIPNone)
	default:
		return nil, invalid("service.type", "%q is none of ClusterIP, NodePort, LoadBalancer and Headless", s.Type)
	}
	ports := s.Ports
	if len(ports) == 0 {
		for _, p := range g.spec.Ports {
			ports = append(ports, release.KubeServicePort{Name: p.Name, Port: p.Port, Target: p.Name, Protocol: p.Protocol})
		}
	}
	if len(ports) == 0 && s.Type != "Headless" {
		return nil, invalid("service.ports", "neither the Service nor the container has a port")
	}
	for i, p := range ports {
		if p.NodePort != 0 && s.Type != "NodePort" && s.Type != "LoadBalancer" {
			return nil, invalid("service.ports["+strconv.Itoa(i)+"].node_port", "it is for a Service of type NodePort or LoadBalancer")
		}
		port := coreac.ServicePort().WithPort(int32(p.Port)).WithProtocol(protocol(p.Protocol)).WithTargetPort(intstr.FromInt32(int32(p.Port)))
		if p.Name != "" {
			port.WithName(p.Name)
		}
		if p.Target != "" {
			port.WithTargetPort(intstr.Parse(p.Target))
		}
		if p.NodePort != 0 {
			port.WithNodePort(int32(p.NodePort))
		}
		spec.WithPorts(port)
	}
	labels, err := g.labels()
	if err != nil {
		return nil, err
	}
	service := coreac.Service(g.name, "").WithLabels(labels).WithAnnotations(s.Annotations).WithSpec(spec)
	service.Namespace = nil
	return toObject(service)
}

// pullSecretName is that of the Secret which pullSecret makes.
func pullSecretName(name string) string { return name + "-registry" }

// pullSecret makes the Secret with the login for a registry.
func pullSecret(spec *release.KubernetesSpec, name string) (*object, error) {
	r := spec.Registry
	server := r.Server
	if server == "" {
		if spec.Image == "" {
			return nil, invalid("registry.server", "it is missing, and so is an image that names it")
		}
		server = registryOf(spec.Image)
	}
	config, err := json.Marshal(map[string]any{"auths": map[string]any{server: map[string]string{
		"username": r.Username, "password": r.Password, "auth": base64.StdEncoding.EncodeToString([]byte(r.Username + ":" + r.Password))}}})
	if err != nil {
		return nil, err
	}
	secret := coreac.Secret(pullSecretName(name), "").WithType(corev1.SecretTypeDockerConfigJson).
		WithData(map[string][]byte{corev1.DockerConfigJsonKey: config})
	secret.Namespace = nil
	return toObject(secret)
}

// registryOf gives the registry of an image as the container runtimes look it up.
func registryOf(image string) string {
	host, _, hasPath := strings.Cut(image, "/")
	if !hasPath || !strings.ContainsAny(host, ".:") && host != "localhost" || host == "docker.io" {
		return "https://index.docker.io/v1/"
	}
	return host
}

func protocol(p string) corev1.Protocol {
	if p == "" {
		return corev1.ProtocolTCP
	}
	return corev1.Protocol(p)
}

// seconds rounds up.
func seconds(d release.Duration) int32 {
	return int32((d.Std() + time.Second - 1) / time.Second)
}
