package kubernetes

import (
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	coreac "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/quicflow/quicflow/internal/release"
)

// template makes the pods' template. It says nothing of the task and the step: going back to a version gives the template of then, so
// that the cluster takes its old revision up again, and a repetition restarts nothing.
func (g *generator) template() (*coreac.PodTemplateSpecApplyConfiguration, error) {
	labels, err := g.labels()
	if err != nil {
		return nil, err
	}
	s := g.spec
	pod := coreac.PodSpec()
	container, err := g.container()
	if err != nil {
		return nil, err
	}
	if err := g.volumes(pod, container); err != nil {
		return nil, err
	}
	pod.WithNodeSelector(s.NodeSelector)
	if s.PullSecret != "" {
		pod.WithImagePullSecrets(coreac.LocalObjectReference().WithName(s.PullSecret))
	}
	if s.Registry != nil {
		pod.WithImagePullSecrets(coreac.LocalObjectReference().WithName(pullSecretName(g.name)))
	}
	if s.ServiceAccount != "" {
		pod.WithServiceAccountName(s.ServiceAccount)
	}
	if s.HostNetwork {
		pod.WithHostNetwork(true)
	}
	if s.GracePeriod != 0 {
		pod.WithTerminationGracePeriodSeconds(int64(seconds(s.GracePeriod)))
	}
	for _, t := range s.Tolerations {
		toleration := coreac.Toleration()
		if t.Key != "" {
			toleration.WithKey(t.Key)
		}
		if t.Operator != "" {
			toleration.WithOperator(corev1.TolerationOperator(t.Operator))
		}
		if t.Value != "" {
			toleration.WithValue(t.Value)
		}
		if t.Effect != "" {
			toleration.WithEffect(corev1.TaintEffect(t.Effect))
		}
		toleration.TolerationSeconds = t.Seconds
		pod.WithTolerations(toleration)
	}
	if s.Security != nil {
		security(pod, container, s.Security)
	}
	pod.WithContainers(container) // which copies it
	annotations := maps.Clone(s.PodAnnotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[annotationVersion] = g.step.Version
	return coreac.PodTemplateSpec().WithLabels(labels).WithAnnotations(annotations).WithSpec(pod), nil
}

func (g *generator) container() (*coreac.ContainerApplyConfiguration, error) {
	s := g.spec
	image := s.Image + ":" + s.ImageTag
	if strings.HasPrefix(s.ImageTag, "sha256:") {
		image = s.Image + "@" + s.ImageTag
	}
	// The name of a container has no dots, as that of a project may.
	c := coreac.Container().WithName(strings.ReplaceAll(g.name, ".", "-")).WithImage(image).WithCommand(s.Command...).WithArgs(s.Args...)
	if s.PullPolicy != "" {
		c.WithImagePullPolicy(corev1.PullPolicy(s.PullPolicy))
	}
	env := maps.Clone(s.Env)
	if env == nil {
		env = map[string]string{}
	}
	env[release.VarProject], env[release.VarVersion] = g.step.Project, g.step.Version
	env[release.VarEnvironment], env[release.VarTarget] = g.step.Environment, g.step.Host.ClientID
	for _, name := range slices.Sorted(maps.Keys(env)) {
		c.WithEnv(coreac.EnvVar().WithName(name).WithValue(env[name]))
	}
	for i, f := range s.EnvFrom {
		from := coreac.EnvFromSource()
		switch {
		case (f.ConfigMap == "") == (f.Secret == ""):
			return nil, invalid("env_from["+strconv.Itoa(i)+"]", "wants exactly one of config_map and secret")
		case f.ConfigMap != "":
			from.WithConfigMapRef(coreac.ConfigMapEnvSource().WithName(f.ConfigMap))
			if f.Optional {
				from.ConfigMapRef.WithOptional(true)
			}
		default:
			from.WithSecretRef(coreac.SecretEnvSource().WithName(f.Secret))
			if f.Optional {
				from.SecretRef.WithOptional(true)
			}
		}
		if f.Prefix != "" {
			from.WithPrefix(f.Prefix)
		}
		c.WithEnvFrom(from)
	}
	for _, p := range s.Ports {
		port := coreac.ContainerPort().WithContainerPort(int32(p.Port)).WithProtocol(protocol(p.Protocol))
		if p.Name != "" {
			port.WithName(p.Name)
		}
		if p.HostPort != 0 {
			port.WithHostPort(int32(p.HostPort))
		}
		c.WithPorts(port)
	}
	if s.Resources != nil {
		requests, err := quantities("resources.requests", s.Resources.Requests)
		if err != nil {
			return nil, err
		}
		limits, err := quantities("resources.limits", s.Resources.Limits)
		if err != nil {
			return nil, err
		}
		resources := coreac.ResourceRequirements()
		if requests != nil {
			resources.WithRequests(requests)
		}
		if limits != nil {
			resources.WithLimits(limits)
		}
		c.WithResources(resources)
	}
	for _, p := range []struct {
		field string
		probe *release.KubeProbe
		set   func(*coreac.ProbeApplyConfiguration) *coreac.ContainerApplyConfiguration
	}{{"liveness", s.Liveness, c.WithLivenessProbe}, {"readiness", s.Readiness, c.WithReadinessProbe}, {"startup", s.Startup, c.WithStartupProbe}} {
		if p.probe == nil {
			continue
		}
		made, err := g.probe(p.field, p.probe)
		if err != nil {
			return nil, err
		}
		p.set(made)
	}
	return c, nil
}

func quantities(field string, from map[string]string) (corev1.ResourceList, error) {
	if len(from) == 0 {
		return nil, nil
	}
	list := corev1.ResourceList{}
	for name, text := range from {
		quantity, err := resource.ParseQuantity(text)
		if err != nil {
			return nil, invalid(field+"."+name, "%q is not a quantity such as 500m or 256Mi", text)
		}
		list[corev1.ResourceName(name)] = quantity
	}
	return list, nil
}

func (g *generator) probe(field string, p *release.KubeProbe) (*coreac.ProbeApplyConfiguration, error) {
	kinds := 0
	for _, set := range []bool{p.HTTPPath != "", p.TCPPort != "", p.GRPCPort != 0, len(p.Exec) > 0} {
		if set {
			kinds++
		}
	}
	probe := coreac.Probe()
	switch {
	case kinds != 1:
		return nil, invalid(field, "wants exactly one of http_path, tcp_port, grpc_port and exec")
	case p.HTTPPath == "" && (p.HTTPPort != "" || p.HTTPScheme != ""):
		return nil, invalid(field, "http_port and http_scheme go with http_path")
	case p.HTTPPath != "":
		get := coreac.HTTPGetAction().WithPath(p.HTTPPath)
		switch {
		case p.HTTPPort != "":
			get.WithPort(intstr.Parse(p.HTTPPort))
		case len(g.spec.Ports) > 0:
			get.WithPort(intstr.FromInt32(int32(g.spec.Ports[0].Port)))
		default:
			return nil, invalid(field+".http_port", "it is missing, and the container has no port")
		}
		if p.HTTPScheme != "" {
			get.WithScheme(corev1.URIScheme(p.HTTPScheme))
		}
		probe.WithHTTPGet(get)
	case p.TCPPort != "":
		probe.WithTCPSocket(coreac.TCPSocketAction().WithPort(intstr.Parse(p.TCPPort)))
	case p.GRPCPort != 0:
		probe.WithGRPC(coreac.GRPCAction().WithPort(int32(p.GRPCPort)))
	default:
		probe.WithExec(coreac.ExecAction().WithCommand(p.Exec...))
	}
	if p.InitialDelay != 0 {
		probe.WithInitialDelaySeconds(seconds(p.InitialDelay))
	}
	if p.Period != 0 {
		probe.WithPeriodSeconds(seconds(p.Period))
	}
	if p.Timeout != 0 {
		probe.WithTimeoutSeconds(seconds(p.Timeout))
	}
	if p.SuccessThreshold != 0 {
		probe.WithSuccessThreshold(int32(p.SuccessThreshold))
	}
	if p.FailureThreshold != 0 {
		probe.WithFailureThreshold(int32(p.FailureThreshold))
	}
	return probe, nil
}

// volumes adds the volumes to the pod and mounts them, and the claims, in its container. A volume may be mounted several times: it
// is there with the same name and source then.
func (g *generator) volumes(pod *coreac.PodSpecApplyConfiguration, c *coreac.ContainerApplyConfiguration) error {
	sources := map[string]*coreac.VolumeApplyConfiguration{}
	for i, v := range g.spec.Volumes {
		field := "volumes[" + strconv.Itoa(i) + "]"
		volume, err := volume(field, v)
		if err != nil {
			return err
		}
		switch there := sources[v.Name]; {
		case there == nil:
			sources[v.Name] = volume
			pod.WithVolumes(volume)
		case !reflect.DeepEqual(there, volume):
			return invalid(field+".name", "%q is there twice, with different sources", v.Name)
		}
		mount := coreac.VolumeMount().WithName(v.Name).WithMountPath(v.MountPath)
		if v.SubPath != "" {
			mount.WithSubPath(v.SubPath)
		}
		if v.ReadOnly {
			mount.WithReadOnly(true)
		}
		c.WithVolumeMounts(mount)
	}
	for _, claim := range g.spec.Claims {
		c.WithVolumeMounts(coreac.VolumeMount().WithName(claim.Name).WithMountPath(claim.MountPath))
	}
	return nil
}

func volume(field string, v release.KubeVolume) (*coreac.VolumeApplyConfiguration, error) {
	n := 0
	for _, set := range []bool{v.ConfigMap != "", v.Secret != "", v.Claim != "", v.HostPath != "", v.EmptyDir} {
		if set {
			n++
		}
	}
	made := coreac.Volume().WithName(v.Name)
	switch {
	case n != 1:
		return nil, invalid(field, "wants exactly one of config_map, secret, claim, host_path and empty_dir")
	case v.SizeLimit != "" && !v.EmptyDir:
		return nil, invalid(field+".size_limit", "it is for an empty_dir")
	case v.ConfigMap != "":
		made.WithConfigMap(coreac.ConfigMapVolumeSource().WithName(v.ConfigMap))
	case v.Secret != "":
		made.WithSecret(coreac.SecretVolumeSource().WithSecretName(v.Secret))
	case v.Claim != "":
		made.WithPersistentVolumeClaim(coreac.PersistentVolumeClaimVolumeSource().WithClaimName(v.Claim))
	case v.HostPath != "":
		made.WithHostPath(coreac.HostPathVolumeSource().WithPath(v.HostPath))
	default:
		dir := coreac.EmptyDirVolumeSource()
		if v.SizeLimit != "" {
			limit, err := resource.ParseQuantity(v.SizeLimit)
			if err != nil {
				return nil, invalid(field+".size_limit", "%q is not a quantity such as 1Gi", v.SizeLimit)
			}
			dir.WithSizeLimit(limit)
		}
		made.WithEmptyDir(dir)
	}
	return made, nil
}

func security(pod *coreac.PodSpecApplyConfiguration, c *coreac.ContainerApplyConfiguration, s *release.KubeSecurity) {
	all := coreac.PodSecurityContext()
	all.RunAsUser, all.RunAsGroup, all.FSGroup, all.RunAsNonRoot = s.RunAsUser, s.RunAsGroup, s.FSGroup, s.RunAsNonRoot
	if s.SeccompProfile != "" {
		all.WithSeccompProfile(coreac.SeccompProfile().WithType(corev1.SeccompProfileType(s.SeccompProfile)))
	}
	pod.WithSecurityContext(all)
	one := coreac.SecurityContext()
	one.Privileged, one.AllowPrivilegeEscalation, one.ReadOnlyRootFilesystem = s.Privileged, s.AllowPrivilegeEscalation, s.ReadOnlyRootFilesystem
	if len(s.CapAdd)+len(s.CapDrop) > 0 {
		capabilities := coreac.Capabilities()
		for _, name := range s.CapAdd {
			capabilities.WithAdd(corev1.Capability(name))
		}
		for _, name := range s.CapDrop {
			capabilities.WithDrop(corev1.Capability(name))
		}
		one.WithCapabilities(capabilities)
	}
	c.WithSecurityContext(one)
}
