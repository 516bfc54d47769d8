package release

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const sha = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

// Each is a layer in JSON with one mistake, and the field that has to be named.
func TestSpecsAreCheckedFieldByField(t *testing.T) {
	for _, of := range []struct {
		of    Type
		layer Layer
		base  string // of a valid layer
		wrong map[string]string
	}{
		{TypeContainer, LayerProject, `"image":"registry.example.com:5000/team/app"`, map[string]string{
			`"image":""`:                                 "image",
			`"image":"app:1.0"`:                          "image",
			`"image":"app@sha256:` + sha + `"`:           "image",
			`"image":"App"`:                              "image",
			`"image":"a b"`:                              "image",
			`"image":"$(reboot)"`:                        "image",
			`"image":"-app"`:                             "image",
			`"image":"` + strings.Repeat("a", 256) + `"`: "image",
			`"image_tag":"1 0"`:                          "image_tag",
			`"image_tag":"sha256:12"`:                    "image_tag",
			`"registry":{"username":"x"}`:                "registry",
			`"registry":{"server":"a b","username":"x","password":"y"}`: "registry.server",
			`"pull_policy":"sometimes"`:                                 "pull_policy",
			`"platform":"linux"`:                                        "platform",
			`"name":"-x"`:                                               "name",
			`"name":"a;reboot"`:                                         "name",
			`"hostname":"a_b"`:                                          "hostname",
			`"domainname":"a..b"`:                                       "domainname",
			`"ports":[{"container":80},{"container":0}]`:                "ports[1].container",
			`"ports":[{"container":80,"host":70000}]`:                   "ports[0].host",
			`"ports":[{"container":80,"host":8080},{"container":81,"host":-1}]`:                    "ports[1].host",
			`"ports":[{"container":80,"host":8080},{"container":81,"host":8080,"protocol":"tcp"}]`: "ports[1].host",
			`"ports":[{"container":80,"host_ip":"localhost"}]`:                                     "ports[0].host_ip",
			`"ports":[{"container":80,"protocol":"icmp"}]`:                                         "ports[0].protocol",
			`"ports":[{"container":80}],"network_mode":"host"`:                                     "ports",
			`"networks":[{"name":"a"}],"network_mode":"bridge"`:                                    "network_mode",
			`"networks":[{"name":""}]`:                                                             "networks[0].name",
			`"networks":[{"name":"a"},{"name":"a"}]`:                                               "networks[1].name",
			`"networks":[{"name":"a","aliases":["x y"]}]`:                                          "networks[0].aliases[0]",
			`"networks":[{"name":"a","ipv4":"::1"}]`:                                               "networks[0].ipv4",
			`"networks":[{"name":"a","ipv6":"10.0.0.1"}]`:                                          "networks[0].ipv6",
			`"network_mode":"vpn"`:                                                                 "network_mode",
			`"dns":["1.1.1"]`:                                                                      "dns[0]",
			`"dns_search":["a b"]`:                                                                 "dns_search[0]",
			`"dns_options":[""]`:                                                                   "dns_options[0]",
			`"extra_hosts":{"db":"there"}`:                                                         "extra_hosts.db",
			`"extra_hosts":{"d b":"10.0.0.1"}`:                                                     "extra_hosts",
			`"volumes":[{"source":"data","target":"data"}]`:                                        "volumes[0].target",
			`"volumes":[{"source":"data","target":"/"}]`:                                           "volumes[0].target",
			`"volumes":[{"source":"../etc","target":"/etc"}]`:                                      "volumes[0].source",
			`"volumes":[{"source":"/a/../etc","target":"/etc"}]`:                                   "volumes[0].source",
			`"volumes":[{"type":"bind","target":"/etc"}]`:                                          "volumes[0].source",
			`"volumes":[{"type":"nfs","source":"a","target":"/etc"}]`:                              "volumes[0].type",
			`"volumes":[{"source":"data","target":"/d","create":true}]`:                            "volumes[0].create",
			`"volumes":[{"source":"/a","target":"/d","no_copy":true}]`:                             "volumes[0].no_copy",
			`"volumes":[{"source":"a","target":"/d"},{"source":"b","target":"/d"}]`:                "volumes[1].target",
			`"volumes":[{"source":"/a","target":"/d","propagation":"some"}]`:                       "volumes[0].propagation",
			`"tmpfs":{"tmp":""}`:                                                                   "tmpfs",
			`"tmpfs":{"/tmp":"size=1 m"}`:                                                          "tmpfs./tmp",
			`"cap_add":["NET ADMIN"]`:                                                              "cap_add[0]",
			`"cap_drop":[""]`:                                                                      "cap_drop[0]",
			`"security_opt":["a\nb"]`:                                                              "security_opt[0]",
			`"devices":[{"host":"fuse"}]`:                                                          "devices[0].host",
			`"devices":[{"host":"/dev/fuse","permissions":"rx"}]`:                                  "devices[0].permissions",
			`"gpus":"some"`:                                "gpus",
			`"ulimits":{"files":{"soft":1}}`:               "ulimits.files",
			`"ulimits":{"nofile":{"soft":10,"hard":5}}`:    "ulimits.nofile.soft",
			`"sysctls":{"somaxconn":"1"}`:                  "sysctls",
			`"group_add":["a b"]`:                          "group_add[0]",
			`"pid_mode":"all"`:                             "pid_mode",
			`"ipc_mode":"all"`:                             "ipc_mode",
			`"userns_mode":"all"`:                          "userns_mode",
			`"oom_score_adj":-2000`:                        "oom_score_adj",
			`"labels":{"quicflow.step":"x"}`:               "labels.quicflow.step",
			`"labels":{"a b":"x"}`:                         "labels",
			`"annotations":{"":"x"}`:                       "annotations",
			`"user":"a b"`:                                 "user",
			`"user":"-u"`:                                  "user",
			`"work_dir":"srv"`:                             "work_dir",
			`"work_dir":"/srv/../etc"`:                     "work_dir",
			`"work_dir":"/srv/"`:                           "work_dir",
			`"resources":{"memory":"1m"}`:                  "resources.memory",
			`"resources":{"memory_swap":"lots"}`:           "resources.memory_swap",
			`"resources":{"cpus":-1}`:                      "resources.cpus",
			`"resources":{"cpu_shares":1}`:                 "resources.cpu_shares",
			`"resources":{"cpuset":"0-"}`:                  "resources.cpuset",
			`"resources":{"pids":-5}`:                      "resources.pids",
			`"resources":{"blkio_weight":5}`:               "resources.blkio_weight",
			`"health_check":{}`:                            "health_check",
			`"health_check":{"shell":"x","test":["y"]}`:    "health_check",
			`"health_check":{"shell":"x","interval":"2h"}`: "health_check.interval",
			`"health_check":{"shell":"x","timeout":"1us"}`: "health_check.timeout",
			`"health_check":{"shell":"x","retries":-1}`:    "health_check.retries",
			`"restart":{"name":"sometimes"}`:               "restart.name",
			`"restart":{"name":"always","max_retries":3}`:  "restart.max_retries",
			`"stop_signal":"SIG TERM"`:                     "stop_signal",
			`"stop_timeout":"2h"`:                          "stop_timeout",
			`"log":{"driver":""}`:                          "log.driver",
			`"update":"now"`:                               "update",
			`"settle":"2h"`:                                "settle",
			`"keep_old":21`:                                "keep_old",
			`"timeout":"25h"`:                              "timeout",
			`"interpreter":"sh\nrm"`:                       "interpreter",
			`"env":{"A B":"x"}`:                            "env",
			`"env":{"QUICFLOW_X":"x"}`:                     "env.QUICFLOW_X",
			`"env":{"A":"a\u0000b"}`:                       "env.A",
			`"health":{"tcp":"80"}`:                        "health.tcp",
			`"pre_script":"` + strings.Repeat("x", MaxScriptBytes+1) + `"`: "",
			`"command":["` + strings.Repeat("x", MaxConfigBytes) + `"]`:    "",
		}},
		{TypeGit, LayerProject, `"repository":"git@example.com:team/site.git"`, map[string]string{
			`"repository":""`:                                                      "repository",
			`"repository":"ext::sh -c reboot"`:                                     "repository",
			`"repository":"--upload-pack=reboot"`:                                  "repository",
			`"repository":"/srv/site.git"`:                                         "repository",
			`"repository":"ftp://example.com/site.git"`:                            "repository",
			`"repository":"https:///site.git"`:                                     "repository",
			`"repository":"ssh://-oProxyCommand=reboot/x"`:                         "repository",
			`"repository":"https://me:secret@example.com/s.git"`:                   "repository",
			`"repository":"https://example.com/a b"`:                               "repository",
			`"auth":{"password":"${GIT_TOKEN}"}`:                                   "auth",
			`"repository":"https://example.com/s.git","auth":{"ssh_key":"${KEY}"}`: "auth",
			`"repository":"https://example.com/s.git","auth":{"username":"x"}`:     "auth.password",
			`"auth":{"ssh_key":"my key"}`:                                          "auth.ssh_key",
			`"ref":"--force"`:                                                      "ref",
			`"ref":"a..b"`:                                                         "ref",
			`"ref":"a b"`:                                                          "ref",
			`"ref":"main.lock"`:                                                    "ref",
			`"ref":"main~1"`:                                                       "ref",
			`"ref":"v1:refs/heads/main"`:                                           "ref",
			`"depth":-1`:                                                           "depth",
			`"keep_releases":101`:                                                  "keep_releases",
			`"path":"site"`:                                                        "path",
			`"path":"/"`:                                                           "path",
			`"path":"/srv/../site"`:                                                "path",
			`"shared":["../x"]`:                                                    "shared[0]",
			`"shared":["/x"]`:                                                      "shared[0]",
			`"shared":[".git/config"]`:                                             "shared[0]",
			`"shared":["a","a"]`:                                                   "shared[1]",
			`"user":"root; reboot"`:                                                "user",
		}},
		{TypeKubernetes, LayerProject, `"image":"team/app"`, map[string]string{
			`"kubeconfig":"config"`:                                                           "kubeconfig",
			`"namespace":"Shop"`:                                                              "namespace",
			`"namespace":"` + strings.Repeat("a", 64) + `"`:                                   "namespace",
			`"kind":"Job"`:                                                                    "kind",
			`"name":"a.b"`:                                                                    "name",
			`"pull_policy":"always"`:                                                          "pull_policy",
			`"pull_secret":"A"`:                                                               "pull_secret",
			`"service_account":"a_b"`:                                                         "service_account",
			`"replicas":-1`:                                                                   "replicas",
			`"env_from":[{}]`:                                                                 "env_from[0]",
			`"env_from":[{"config_map":"a","secret":"b"}]`:                                    "env_from[0]",
			`"env_from":[{"secret":"B"}]`:                                                     "env_from[0].secret",
			`"ports":[{"port":0}]`:                                                            "ports[0].port",
			`"ports":[{"port":80},{"port":81,"name":"b"}]`:                                    "ports[0].name",
			`"ports":[{"port":80,"name":"a"},{"port":80,"name":"b"}]`:                         "ports[1].port",
			`"ports":[{"port":80,"name":"a"},{"port":81,"name":"a"}]`:                         "ports[1].name",
			`"ports":[{"port":80,"name":"a-very-long-name"}]`:                                 "ports[0].name",
			`"ports":[{"port":80,"protocol":"tcp"}]`:                                          "ports[0].protocol",
			`"service":{"type":"External"}`:                                                   "service.type",
			`"service":{"ports":[{"port":80,"target":"no name"}]}`:                            "service.ports[0].target",
			`"service":{"ports":[{"port":80,"target":"70000"}]}`:                              "service.ports[0].target",
			`"service":{"ports":[{"port":80,"node_port":30000}]}`:                             "service.ports[0].node_port",
			`"volumes":[{"name":"a","mount_path":"/a"}]`:                                      "volumes[0]",
			`"volumes":[{"name":"a","mount_path":"a","empty_dir":true}]`:                      "volumes[0].mount_path",
			`"volumes":[{"name":"A","mount_path":"/a","empty_dir":true}]`:                     "volumes[0].name",
			`"volumes":[{"name":"a","mount_path":"/a","secret":"b","size_limit":"1Gi"}]`:      "volumes[0].size_limit",
			`"volumes":[{"name":"a","mount_path":"/a","empty_dir":true,"size_limit":"1 GB"}]`: "volumes[0].size_limit",
			`"volumes":[{"name":"a","mount_path":"/a","secret":"b","sub_path":"../x"}]`:       "volumes[0].sub_path",
			`"claims":[{"name":"a","mount_path":"/a"}]`:                                       "claims[0].size",
			`"claims":[{"name":"a","mount_path":"/a","size":"1Gi","access_modes":["Any"]}]`:   "claims[0].access_modes[0]",
			`"resources":{"requests":{"cpu":"much"}}`:                                         "resources.requests.cpu",
			`"resources":{"limits":{"c p u":"1"}}`:                                            "resources.limits",
			`"labels":{"a b":"c"}`:                                                            "labels",
			`"labels":{"a":"b c"}`:                                                            "labels.a",
			`"labels":{"quicflow/project":"x"}`:                                               "labels.quicflow/project",
			`"annotations":{"/x":"y"}`:                                                        "annotations",
			`"node_selector":{"disk":"s s d"}`:                                                "node_selector.disk",
			`"tolerations":[{"operator":"Equal"}]`:                                            "tolerations[0].key",
			`"tolerations":[{"key":"a","operator":"Exists","value":"b"}]`:                     "tolerations[0].value",
			`"tolerations":[{"key":"a","seconds":1}]`:                                         "tolerations[0].seconds",
			`"security":{"run_as_user":-1}`:                                                   "security.run_as_user",
			`"security":{"seccomp_profile":"None"}`:                                           "security.seccomp_profile",
			`"liveness":{}`:                                                                   "liveness",
			`"readiness":{"http_path":"ready"}`:                                               "readiness.http_path",
			`"readiness":{"http_path":"/ready","tcp_port":"80"}`:                              "readiness",
			`"startup":{"tcp_port":"0"}`:                                                      "startup.tcp_port",
			`"startup":{"tcp_port":"80","success_threshold":2}`:                               "startup.success_threshold",
			`"max_surge":"some"`:                                                              "max_surge",
			`"max_unavailable":"1.5"`:                                                         "max_unavailable",
			`"patches":[{"patch":" "}]`:                                                       "patches[0].patch",
			`"patches":[{"type":"diff","patch":"a: b"}]`:                                      "patches[0].type",
			`"patches":[{"kind":"deployment","patch":"a: b"}]`:                                "patches[0].kind",
			`"manifest":"  "`:                                                                 "manifest",
			`"deadline":"25h"`:                                                                "deadline",
			`"history":-1`:                                                                    "history",
		}},
		{TypeScript, LayerVersion, `"install":"true"`, map[string]string{
			`"install":""`:                           "install",
			`"user":"a b"`:                           "user",
			`"work_dir":"/a/./b"`:                    "work_dir",
			`"limits":{"cpus":-1}`:                   "limits.cpus",
			`"limits":{"processes":-1}`:              "limits.processes",
			`"keep_releases":-1`:                     "keep_releases",
			`"artifacts":[{"sha256":"` + sha + `"}]`: "artifacts[0].name",
			`"artifacts":[{"name":"../x","sha256":"` + sha + `"}]`:                                  "artifacts[0].name",
			`"artifacts":[{"name":"/x","sha256":"` + sha + `"}]`:                                    "artifacts[0].name",
			`"artifacts":[{"name":"x"}]`:                                                            "artifacts[0].sha256",
			`"artifacts":[{"name":"x","sha256":"abc"}]`:                                             "artifacts[0].sha256",
			`"artifacts":[{"name":"x","sha256":"` + sha + `","url":"file:///x"}]`:                   "artifacts[0].url",
			`"artifacts":[{"name":"x","sha256":"` + sha + `","url":"https://a:b@x/"}]`:              "artifacts[0].url",
			`"artifacts":[{"name":"x","sha256":"` + sha + `","unpack":"rar"}]`:                      "artifacts[0].unpack",
			`"artifacts":[{"name":"x","sha256":"` + sha + `","strip":1}]`:                           "artifacts[0].strip",
			`"artifacts":[{"name":"x","sha256":"` + sha + `","mode":"rwx"}]`:                        "artifacts[0].mode",
			`"artifacts":[{"name":"x","sha256":"` + sha + `"},{"name":"x","sha256":"` + sha + `"}]`: "artifacts[1].name",
			`"install":"tr\u0000ue"`:                                                                "install",
		}},
	} {
		check := func(text string) error {
			var base, more map[string]any
			require.NoError(t, json.Unmarshal([]byte("{"+of.base+"}"), &base))
			require.NoError(t, json.Unmarshal([]byte("{"+text+"}"), &more), text)
			for name, value := range more {
				base[name] = value
			}
			merged, err := json.Marshal(base)
			require.NoError(t, err)
			c, err := ParseConfig(of.of, merged)
			require.NoError(t, err, text)
			return c.validateLayer(of.of, of.layer, "")
		}
		require.NoError(t, check(""))
		for text, field := range of.wrong {
			want := strings.TrimSuffix(string(of.of)+"."+field, ".")
			err := check(text)
			var known *Error
			require.ErrorAs(t, err, &known, "%s %.200s", of.of, text)
			require.Equal(t, want, known.Field, "%.200s: %s", text, known.Message)
			require.NotContains(t, known.Message, "\n")
			require.Less(t, len(known.Message), 300)
		}
	}
}

// What holds a reference is looked at once it is expanded.
func TestReferencesAreCheckedWhenExpanded(t *testing.T) {
	p := Project{Name: "shop", Type: TypeContainer, Spec: Spec{Container: &ContainerSpec{Image: "${IMAGE}", Name: "${QUICFLOW_PROJECT}-${QUICFLOW_ENVIRONMENT}",
		Ports: []Port{{Container: 80, HostIP: "${IP}"}}, Registry: &RegistryAuth{Username: "me", Password: "${TOKEN}"}}}}
	require.NoError(t, p.Validate())
	v := Version{Name: "1.0", Status: VersionActive, Spec: Spec{Container: &ContainerSpec{ImageTag: "${QUICFLOW_VERSION}"}}}
	require.NoError(t, v.ValidateFor(TypeContainer))
	merged := Merge(p, v, Override{})
	require.NoError(t, merged.Validate())
	variables := []Variable{{Name: "IMAGE", Value: "team/app"}, {Name: "IP", Value: "10.0.0.1"}, {Name: "IP", Value: "10.0.0.2", Environment: "prod"}, {Name: "TOKEN", Secret: true}}
	builtIns := BuiltIns{Project: "shop", Version: "1.0", Environment: "prod"}
	done, err := merged.Expand(Variables(builtIns, variables), false)
	require.NoError(t, err)
	require.NoError(t, done.Validate())
	require.Equal(t, "team/app", done.Container.Image)
	require.Equal(t, "1.0", done.Container.ImageTag)
	require.Equal(t, "shop-prod", done.Container.Name)
	require.Equal(t, "10.0.0.2", done.Container.Ports[0].HostIP, "the environment's goes before the project's")
	require.Equal(t, []string{"TOKEN"}, done.References())

	variables[0].Value = "Team App"
	done, err = merged.Expand(Variables(builtIns, variables), false)
	require.NoError(t, err)
	requireInvalid(t, "container.image", done.Validate())

	_, err = merged.Expand(Variables(builtIns, variables[:3]), false)
	var known *Error
	require.ErrorAs(t, err, &known)
	require.Equal(t, "container.registry.password", known.Field)
	require.Contains(t, known.Message, "no variable TOKEN")

	merged.Container.Image = "app-${QUICFLOW_CLIENT}"
	_, err = merged.Expand(Variables(builtIns, variables), false)
	require.ErrorAs(t, err, &known)
	require.Equal(t, "container.image", known.Field)
	require.Contains(t, known.Message, "no variable QUICFLOW_CLIENT; QuicFlow's own are QUICFLOW_RELEASE, ")
	require.Contains(t, known.Message, VarTarget)
}

// What only the layers together tell.
func TestMergedIsCheckedAsAWhole(t *testing.T) {
	k := func(change func(*KubernetesSpec)) error {
		s := KubernetesSpec{Image: "app", ImageTag: "1"}
		change(&s)
		c := Merge(Project{Type: TypeKubernetes, Spec: Spec{Kubernetes: &s}}, Version{}, Override{})
		return c.Validate()
	}
	two := 2
	require.NoError(t, k(func(*KubernetesSpec) {}))
	require.NoError(t, k(func(s *KubernetesSpec) { *s = KubernetesSpec{Manifest: "kind: ConfigMap"} }))
	for field, change := range map[string]func(*KubernetesSpec){
		"kubernetes.image":         func(s *KubernetesSpec) { s.Image = "" },
		"kubernetes.image_tag":     func(s *KubernetesSpec) { s.ImageTag = "" },
		"kubernetes.replicas":      func(s *KubernetesSpec) { s.Kind, s.Replicas = "DaemonSet", &two },
		"kubernetes.claims":        func(s *KubernetesSpec) { s.Claims = []KubeClaim{{Name: "a", MountPath: "/a", Size: "1Gi"}} },
		"kubernetes.service_name":  func(s *KubernetesSpec) { s.ServiceName = "a" },
		"kubernetes.recreate":      func(s *KubernetesSpec) { s.Kind, s.Recreate = "StatefulSet", true },
		"kubernetes.max_surge":     func(s *KubernetesSpec) { s.Kind, s.MaxSurge = "StatefulSet", "1" },
		"kubernetes.service.ports": func(s *KubernetesSpec) { s.Service = &KubeService{} },
		"kubernetes.name": func(s *KubernetesSpec) {
			s.Name, s.Service, s.Ports = "1a", &KubeService{}, []KubePort{{Port: 80}}
		},
	} {
		requireInvalid(t, field, k(change))
	}
	git := Merge(Project{Type: TypeGit, Spec: Spec{Git: &GitSpec{Repository: "https://example.com/x.git"}}}, Version{}, Override{})
	requireInvalid(t, "git.ref", git.Validate())
	container := Merge(Project{Type: TypeContainer, Spec: Spec{Container: &ContainerSpec{Image: "app", Resources: &ContainerResources{Memory: 1 << 30}}}},
		Version{Spec: Spec{Container: &ContainerSpec{ImageTag: "1", Resources: &ContainerResources{MemorySwap: "512m"}}}}, Override{})
	requireInvalid(t, "container.resources.memory_swap", container.Validate())
}

func TestEnvironmentAndVariableValidate(t *testing.T) {
	e := Environment{Name: "prod", Selector: "env=prod", Strategy: Strategy{MaxParallel: 5}}
	require.NoError(t, e.Validate())
	for field, spoil := range map[string]func(*Environment){
		"name":                  func(e *Environment) { e.Name = "Prod 1" },
		"description":           func(e *Environment) { e.Description = strings.Repeat("x", MaxDescription+1) },
		"selector":              func(e *Environment) { e.Selector = "=x" },
		"strategy.max_parallel": func(e *Environment) { e.Strategy.MaxParallel = -1 },
	} {
		e := e
		spoil(&e)
		requireInvalid(t, field, e.Validate())
	}
	v := Variable{Name: "A_B", Value: "x"}
	require.NoError(t, v.Validate())
	for field, spoil := range map[string]func(*Variable){
		"name":        func(v *Variable) { v.Name = "A-B" },
		"value":       func(v *Variable) { v.Value = strings.Repeat("x", MaxVariableBytes+1) },
		"description": func(v *Variable) { v.Description = strings.Repeat("x", MaxDescription+1) },
	} {
		v := v
		spoil(&v)
		requireInvalid(t, field, v.Validate())
	}
	v.Name = "QUICFLOW_X"
	requireInvalid(t, "name", v.Validate())
	v.Name, v.Value = "A", "a\x00b"
	requireInvalid(t, "value", v.Validate())
}

func TestStrategyOr(t *testing.T) {
	environment := Strategy{Canary: &Canary{Percent: 10, Soak: Duration(time.Minute)}, Waves: []float64{50}, MaxParallel: 5, MaxFailures: Limit{Count: 2},
		OnFailure: OnFailureRollback, Offline: OfflineFail}
	require.Equal(t, environment, Strategy{}.Or(environment))
	own := Strategy{Canary: &Canary{}, MaxParallel: 7, OnFailure: OnFailureStop}
	require.Equal(t, Strategy{Canary: own.Canary, Waves: []float64{50}, MaxParallel: 7, MaxFailures: Limit{Count: 2}, OnFailure: OnFailureStop,
		Offline: OfflineFail}, own.Or(environment))
}

func TestSnapshotIsNamedByItsContent(t *testing.T) {
	c := Merge(Project{Type: TypeContainer, Spec: Spec{Container: &ContainerSpec{Image: "app", Name: "x-${QUICFLOW_TARGET}", Registry: &RegistryAuth{Username: "u", Password: "${B}${A}"}}}},
		Version{Spec: Spec{Container: &ContainerSpec{ImageTag: "1"}}}, Override{})
	one, err := NewSnapshot(c, "p", "v", "")
	require.NoError(t, err)
	require.Equal(t, []string{"A", "B"}, one.Secrets)
	again, err := NewSnapshot(c, "p", "v", "")
	require.NoError(t, err)
	require.Equal(t, one.ID, again.ID)
	ids := map[string]bool{one.ID: true}
	for _, other := range [][3]string{{"p2", "v", ""}, {"p", "v2", ""}, {"p", "v", "e"}} {
		s, err := NewSnapshot(c, other[0], other[1], other[2])
		require.NoError(t, err)
		require.False(t, ids[s.ID], fmt.Sprint(other))
		ids[s.ID] = true
	}
	back, err := one.Merged()
	require.NoError(t, err)
	require.Equal(t, c.Container, back.Container)
	require.Equal(t, []string{"container.registry.password is readable to everyone who may read the project; put it into a secret variable and write ${NAME}"},
		(&Merged{Type: TypeContainer, Spec: Spec{Container: &ContainerSpec{Registry: &RegistryAuth{Password: "x"}}}}).Warnings())
	require.Empty(t, c.Warnings())
}
