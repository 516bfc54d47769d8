package release

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/quicflow/quicflow/internal/lazyregexp"
)

const maxReplicas = 100_000

var (
	dnsLabelForm     = lazyregexp.New(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	dnsLetterForm    = lazyregexp.New(`^[a-z]`)
	dnsSubdomainForm = lazyregexp.New(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
	kubeKeyForm      = lazyregexp.New(`^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$`)
	kubeValueForm    = lazyregexp.New(`^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$`)
	portNameForm     = lazyregexp.New(`^[a-z0-9-]{0,14}[a-z][a-z0-9-]{0,14}$`)
	quantityForm     = lazyregexp.New(`^\+?[0-9]{1,18}(\.[0-9]{1,9})?([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?$`)
	countForm        = lazyregexp.New(`^[0-9]{1,6}%?$`)
	kindForm         = lazyregexp.New(`^[A-Z][A-Za-z0-9]{0,62}$`)
)

const (
	dnsLabelWant     = "a name of lower case letters, digits and dashes, at most 63"
	dnsSubdomainWant = "a name of lower case letters, digits, dashes and dots"
)

func (s *KubernetesSpec) validate(c *checker, layer Layer) {
	c.absolute("kubeconfig", s.Kubeconfig)
	c.form("context", s.Context, lineForm, "a single line")
	c.form("namespace", s.Namespace, dnsLabelForm, dnsLabelWant)
	c.oneOf("kind", s.Kind, "Deployment", "StatefulSet", "DaemonSet")
	c.form("name", s.Name, dnsLabelForm, dnsLabelWant)
	c.image(s.Image, s.ImageTag, s.Registry)
	c.oneOf("pull_policy", s.PullPolicy, "Always", "IfNotPresent", "Never")
	c.subdomain("pull_secret", s.PullSecret)
	c.subdomain("service_account", s.ServiceAccount)
	if s.Replicas != nil {
		c.between("replicas", int64(*s.Replicas), 0, maxReplicas)
	}
	for i, from := range s.EnvFrom {
		at := fmt.Sprintf("env_from[%d]", i)
		if (from.ConfigMap == "") == (from.Secret == "") {
			c.fail(at, "wants exactly one of config_map and secret")
		}
		c.subdomain(at+".config_map", from.ConfigMap)
		c.subdomain(at+".secret", from.Secret)
		c.form(at+".prefix", from.Prefix, envNameForm, "the beginning of a name for an environment variable")
	}
	c.kubePorts(s)
	c.kubeVolumes(s)
	c.kubePods(s)
	for i, p := range s.Patches {
		at := fmt.Sprintf("patches[%d].", i)
		c.form(at+"kind", p.Kind, kindForm, "a kind, such as Deployment")
		c.subdomain(at+"name", p.Name)
		c.oneOf(at+"type", p.Type, "strategic", "merge", "json")
		if strings.TrimSpace(p.Patch) == "" {
			c.fail(at+"patch", "is empty")
		}
	}
	if s.Manifest != "" && strings.TrimSpace(s.Manifest) == "" {
		c.fail("manifest", "is blank")
	}
	c.atMost("deadline", s.Deadline, MaxStepTimeout)
	c.common(s.Env, s.Timeout, s.Interpreter, s.Health, s.PreScript, s.PostScript)
	if layer == layerMerged {
		c.kubeWhole(s)
	}
}

// kubeWhole checks what only all layers together tell.
func (c *checker) kubeWhole(s *KubernetesSpec) {
	if s.Manifest != "" {
		return
	}
	if s.Image == "" {
		c.fail("image", "name the image's repository, or give a manifest")
	}
	if s.ImageTag == "" {
		c.fail("image_tag", "a version without a manifest needs the tag, or the digest, of its image")
	}
	switch {
	case s.Kind == "DaemonSet" && s.Replicas != nil:
		c.fail("replicas", "a DaemonSet has a pod on each node, whatever the number")
	case s.Kind != "StatefulSet" && len(s.Claims) > 0:
		c.fail("claims", "are for a StatefulSet")
	case s.Kind != "StatefulSet" && s.ServiceName != "":
		c.fail("service_name", "is for a StatefulSet")
	case s.Kind != "Deployment" && s.Kind != "" && s.Recreate:
		c.fail("recreate", "is for a Deployment")
	case s.Recreate && (s.MaxSurge != "" || s.MaxUnavailable != ""):
		c.fail("recreate", "leaves no place for max_surge and max_unavailable")
	case s.Kind == "StatefulSet" && s.MaxSurge != "":
		c.fail("max_surge", "is not for a StatefulSet")
	}
	if s.Service != nil {
		if len(s.Service.Ports) == 0 && len(s.Ports) == 0 {
			c.fail("service.ports", "neither the service nor the container has a port")
		}
		if !hasReference(s.Name) && s.Name != "" && !dnsLetterForm.MatchString(s.Name) {
			c.fail("name", "%s is also the Service's, which must begin with a letter", quote(s.Name))
		}
	}
}

func (c *checker) subdomain(at, value string) {
	if len(value) > 253 {
		c.fail(at, "is longer than 253 characters")
	}
	c.form(at, value, dnsSubdomainForm, dnsSubdomainWant)
}

// portRef is the number or the name of a port.
func (c *checker) portRef(at, value string) {
	if value == "" || hasReference(value) {
		return
	}
	if n, err := strconv.Atoi(value); err == nil {
		c.between(at, int64(n), 1, 65535)
		return
	}
	c.portName(at, value)
}

func (c *checker) portName(at, value string) {
	if len(value) > 15 {
		c.fail(at, "%s is longer than 15 characters", quote(value))
	}
	c.form(at, value, portNameForm, "a port's name: lower case letters, digits and dashes")
}

func (c *checker) kubePorts(s *KubernetesSpec) {
	for i, p := range s.Ports {
		at := fmt.Sprintf("ports[%d].", i)
		c.between(at+"port", int64(p.Port), 1, 65535)
		c.between(at+"host_port", int64(p.HostPort), 0, 65535)
		c.oneOf(at+"protocol", p.Protocol, "TCP", "UDP", "SCTP")
		c.portName(at+"name", p.Name)
		if len(s.Ports) > 1 && p.Name == "" {
			c.fail(at+"name", "is needed where there are several")
		}
	}
	c.distinct(len(s.Ports), func(i int) (at, key string) { return fmt.Sprintf("ports[%d].name", i), s.Ports[i].Name })
	c.distinct(len(s.Ports), func(i int) (at, key string) {
		return fmt.Sprintf("ports[%d].port", i), fmt.Sprintf("%d/%s", s.Ports[i].Port, cmp.Or(s.Ports[i].Protocol, "TCP"))
	})
	c.subdomain("service_name", s.ServiceName)
	if s.Service == nil {
		return
	}
	c.oneOf("service.type", s.Service.Type, "ClusterIP", "NodePort", "LoadBalancer", "Headless")
	c.annotations("service.annotations", s.Service.Annotations)
	for i, p := range s.Service.Ports {
		at := fmt.Sprintf("service.ports[%d].", i)
		c.between(at+"port", int64(p.Port), 1, 65535)
		c.between(at+"node_port", int64(p.NodePort), 0, 65535)
		if p.NodePort != 0 && s.Service.Type != "NodePort" && s.Service.Type != "LoadBalancer" {
			c.fail(at+"node_port", "is for the types NodePort and LoadBalancer")
		}
		c.oneOf(at+"protocol", p.Protocol, "TCP", "UDP", "SCTP")
		c.portRef(at+"target", p.Target)
		c.portName(at+"name", p.Name)
		if len(s.Service.Ports) > 1 && p.Name == "" {
			c.fail(at+"name", "is needed where there are several")
		}
	}
	c.distinct(len(s.Service.Ports), func(i int) (at, key string) {
		return fmt.Sprintf("service.ports[%d].name", i), s.Service.Ports[i].Name
	})
}

func (c *checker) kubeVolumes(s *KubernetesSpec) {
	type mount struct{ at, name, path string }
	var mounts []mount
	for i, v := range s.Volumes {
		at := fmt.Sprintf("volumes[%d]", i)
		mounts = append(mounts, mount{at, v.Name, v.MountPath})
		sources := 0
		for _, set := range []bool{v.ConfigMap != "", v.Secret != "", v.Claim != "", v.HostPath != "", v.EmptyDir} {
			if set {
				sources++
			}
		}
		if sources != 1 {
			c.fail(at, "wants exactly one of config_map, secret, claim, host_path and empty_dir")
		}
		c.subdomain(at+".config_map", v.ConfigMap)
		c.subdomain(at+".secret", v.Secret)
		c.subdomain(at+".claim", v.Claim)
		c.absolute(at+".host_path", v.HostPath)
		if v.SubPath != "" {
			c.relative(at+".sub_path", v.SubPath)
		}
		if v.SizeLimit != "" && !v.EmptyDir {
			c.fail(at+".size_limit", "is for an empty_dir")
		}
		c.quantity(at+".size_limit", v.SizeLimit)
	}
	for i, v := range s.Claims {
		at := fmt.Sprintf("claims[%d]", i)
		mounts = append(mounts, mount{at, v.Name, v.MountPath})
		if v.Size == "" {
			c.fail(at+".size", "say how large, such as 10Gi")
		}
		c.quantity(at+".size", v.Size)
		c.subdomain(at+".storage_class", v.StorageClass)
		for j, mode := range v.AccessModes {
			c.oneOf(fmt.Sprintf("%s.access_modes[%d]", at, j), cmp.Or(mode, " "), "ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")
		}
	}
	for _, m := range mounts {
		if m.name == "" {
			c.fail(m.at+".name", "name the volume")
		}
		c.form(m.at+".name", m.name, dnsLabelForm, dnsLabelWant)
		if m.path == "" {
			c.fail(m.at+".mount_path", "name the path within the container")
		}
		c.absolute(m.at+".mount_path", m.path)
	}
	c.distinct(len(mounts), func(i int) (at, key string) { return mounts[i].at + ".name", mounts[i].name })
	c.distinct(len(mounts), func(i int) (at, key string) { return mounts[i].at + ".mount_path", mounts[i].path })
}

func (c *checker) quantity(at, value string) {
	c.form(at, value, quantityForm, "a quantity such as 250m, 1.5 or 512Mi")
}

// kubePods checks what pods are like.
func (c *checker) kubePods(s *KubernetesSpec) {
	if r := s.Resources; r != nil {
		for _, m := range []struct {
			at     string
			values map[string]string
		}{{"resources.requests", r.Requests}, {"resources.limits", r.Limits}} {
			keys(m.values, func(name, value string) {
				if !kubeKeyForm.MatchString(name) {
					c.fail(m.at, "%s is not the name of a resource", quote(name))
				}
				if value == "" {
					c.fail(m.at+"."+name, "is empty")
				}
				c.quantity(m.at+"."+name, value)
			})
		}
	}
	c.kubeLabels("labels", s.Labels)
	c.kubeLabels("node_selector", s.NodeSelector)
	c.annotations("annotations", s.Annotations)
	c.annotations("pod_annotations", s.PodAnnotations)
	for i, t := range s.Tolerations {
		at := fmt.Sprintf("tolerations[%d].", i)
		c.oneOf(at+"operator", t.Operator, "Exists", "Equal")
		c.oneOf(at+"effect", t.Effect, "NoSchedule", "PreferNoSchedule", "NoExecute")
		switch {
		case t.Key == "" && t.Operator != "Exists":
			c.fail(at+"key", "is needed unless the operator is Exists")
		case t.Operator == "Exists" && t.Value != "":
			c.fail(at+"value", "has no meaning with the operator Exists")
		case t.Seconds != nil && t.Effect != "NoExecute":
			c.fail(at+"seconds", "is for the effect NoExecute")
		}
		c.form(at+"key", t.Key, kubeKeyForm, "the key of a taint")
		c.form(at+"value", t.Value, kubeValueForm, "the value of a taint")
	}
	if p := s.Security; p != nil {
		for name, id := range map[string]*int64{"run_as_user": p.RunAsUser, "run_as_group": p.RunAsGroup, "fs_group": p.FSGroup} {
			if id != nil {
				c.between("security."+name, *id, 0, 1<<31-1)
			}
		}
		c.forms("security.cap_add", p.CapAdd, capabilityForm, "a capability, such as NET_ADMIN")
		c.forms("security.cap_drop", p.CapDrop, capabilityForm, "a capability, such as NET_ADMIN")
		c.oneOf("security.seccomp_profile", p.SeccompProfile, "RuntimeDefault", "Unconfined")
	}
	c.probe("liveness", s.Liveness)
	c.probe("readiness", s.Readiness)
	c.probe("startup", s.Startup)
	c.form("max_surge", s.MaxSurge, countForm, "a count or a percentage, such as 25%")
	c.form("max_unavailable", s.MaxUnavailable, countForm, "a count or a percentage, such as 25%")
	c.atMost("min_ready", s.MinReady, maxPeriod)
	c.atMost("grace_period", s.GracePeriod, MaxStepTimeout)
	if s.History != nil {
		c.between("history", int64(*s.History), 0, 1000)
	}
}

func (c *checker) kubeLabels(at string, labels map[string]string) {
	keys(labels, func(key, value string) {
		c.kubeKey(at, key)
		c.form(at+"."+key, value, kubeValueForm, "a label's value: at most 63 letters, digits, dots, dashes and underscores")
	})
}

func (c *checker) annotations(at string, values map[string]string) {
	keys(values, func(key, _ string) { c.kubeKey(at, key) })
}

func (c *checker) kubeKey(at, key string) {
	switch {
	case !kubeKeyForm.MatchString(key):
		c.fail(at, "%s is not a key such as team or example.com/team", quote(key))
	case strings.HasPrefix(key, reservedLabel) || strings.HasPrefix(key, "quicflow/"):
		c.fail(at+"."+key, "keys beginning with quicflow are QuicFlow's own")
	}
}

func (c *checker) probe(at string, p *KubeProbe) {
	if p == nil {
		return
	}
	ways := 0
	for _, set := range []bool{p.HTTPPath != "", p.TCPPort != "", len(p.Exec) > 0, p.GRPCPort != 0} {
		if set {
			ways++
		}
	}
	if ways != 1 {
		c.fail(at, "wants exactly one of http_path, tcp_port, exec and grpc_port")
	}
	if p.HTTPPath != "" && !strings.HasPrefix(p.HTTPPath, "/") && !hasReference(p.HTTPPath) {
		c.fail(at+".http_path", "%s does not begin with a slash", quote(p.HTTPPath))
	}
	if p.HTTPPath == "" && (p.HTTPPort != "" || p.HTTPScheme != "") {
		c.fail(at+".http_path", "is missing beside http_port or http_scheme")
	}
	c.portRef(at+".http_port", p.HTTPPort)
	c.portRef(at+".tcp_port", p.TCPPort)
	c.oneOf(at+".http_scheme", p.HTTPScheme, "HTTP", "HTTPS")
	c.between(at+".grpc_port", int64(p.GRPCPort), 0, 65535)
	for _, d := range []struct {
		name  string
		value Duration
	}{{"initial_delay", p.InitialDelay}, {"period", p.Period}, {"timeout", p.Timeout}} {
		c.atMost(at+"."+d.name, d.value, maxPeriod)
	}
	c.between(at+".success_threshold", int64(p.SuccessThreshold), 0, 1000)
	c.between(at+".failure_threshold", int64(p.FailureThreshold), 0, 1000)
	if !slices.Contains([]int{0, 1}, p.SuccessThreshold) && at != "readiness" {
		c.fail(at+".success_threshold", "must be 1 but for readiness")
	}
}
