package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/release"
)

const (
	// maxDescribed is how many pods a description lists, and in how many bytes: it is a part of a step's result.
	maxDescribed      = 20
	maxDescribedBytes = 5 << 10
	// maxCompared is how many objects are compared with what was applied.
	maxCompared = 100
)

// Describe says what runs of a project, by its inventory and what the cluster has of that.
func (*Worker) Describe(ctx context.Context, what executor.Deployed) (executor.Running, error) {
	d, inv, err := open(ctx, what)
	if err != nil {
		return executor.Running{Project: what.Project, Type: release.TypeKubernetes, State: executor.RunUnknown, Reason: oneLine(err.Error())}, nil
	}
	return d.describe(ctx, inv)
}

// open connects to the cluster that a project was deployed to.
func open(ctx context.Context, what executor.Deployed) (*deployment, *inventory, error) {
	spec := what.Config.Kubernetes
	if spec == nil {
		spec = &release.KubernetesSpec{}
	}
	c, err := connect(ctx, spec, nil)
	if err != nil {
		return nil, nil, err
	}
	step := &executor.Step{Project: what.Project, Host: what.Host}
	inv, err := c.loadInventory(ctx, what.Project)
	return &deployment{Run: &executor.Run{Step: step}, spec: spec, cluster: c}, inv, err
}

// describe looks at all objects of the revision that serves.
func (d *deployment) describe(ctx context.Context, inv *inventory) (executor.Running, error) {
	running := executor.Running{Project: d.Project, Type: release.TypeKubernetes, State: executor.RunMissing,
		Details: map[string]string{"namespace": d.namespace, "server": d.server}}
	if inv.Target != "" && inv.Target != d.Host.ClientID {
		running.Reason = "what is in namespace " + d.namespace + " was deployed by agent " + inv.Target
		return running, nil
	}
	serves := inv.ready()
	if serves == nil {
		if len(inv.Objects) > 0 {
			running.State, running.Reason = executor.RunDegraded, "its first deployment did not end"
		}
		return running, nil
	}
	running.Version, running.ConfigID, running.TaskID, running.Since = serves.Version, serves.ConfigID, serves.TaskID, serves.ReadyAt
	running.Details["revision"] = strconv.Itoa(serves.Number)
	objects, err := inv.applied(serves.Number)
	if err != nil {
		return running, err
	}
	s := &sight{deployment: d, running: &running, images: map[string]bool{}}
	for _, o := range objects {
		if err := s.see(ctx, o); err != nil {
			running.State, running.Reason = executor.RunUnknown, oneLine(err.Error())
			return running, nil
		}
	}
	s.conclude(len(objects))
	return running, nil
}

// sight is what was seen of a deployment.
type sight struct {
	*deployment
	running *executor.Running
	images  map[string]bool

	missing, changed, degraded []string // why
	compared, there, bytes     int
	workloads                  []string
	idle                       bool // a workload is missing
	good, desired              int32
}

func (s *sight) see(ctx context.Context, o *object) error {
	r := refOf(o)
	live, err := s.get(ctx, r)
	if err != nil {
		return err
	}
	if live == nil && endsByItself(o) {
		s.there++
		return nil
	}
	if live == nil {
		s.missing = append(s.missing, r.String()+" is not there")
		s.idle = s.idle || isWorkload(r)
		return nil
	}
	s.there++
	if s.compared < maxCompared && r.Kind != "Namespace" {
		s.compared++
		if why := s.difference(ctx, o, live); why != "" {
			s.changed = append(s.changed, why)
		}
	}
	if !isWorkload(r) {
		return nil
	}
	p, err := progressOf(live)
	if err != nil {
		return err
	}
	s.workloads = append(s.workloads, r.String())
	s.good, s.desired = s.good+p.good, s.desired+p.desired
	if !p.ready {
		why, _, _ := s.troubleOf(ctx, live, p, s.warnings(ctx, r.Namespace, time.Now().Add(-time.Hour)))
		if why == "" {
			why = p.text
		}
		s.degraded = append(s.degraded, r.String()+": "+why)
	}
	return s.pods(ctx, live)
}

func (s *sight) pods(ctx context.Context, workload *object) error {
	pods, err := s.podsOf(ctx, workload, false)
	if err != nil {
		return err
	}
	for i := range pods {
		pod := &pods[i]
		state := "not ready"
		switch {
		case pod.DeletionTimestamp != nil:
			state = "stops"
		case podReady(pod):
			state = "ready"
		}
		details := map[string]string{"namespace": pod.Namespace, "phase": string(pod.Status.Phase)}
		if pod.Spec.NodeName != "" {
			details["node"] = pod.Spec.NodeName
		}
		if pod.Status.StartTime != nil {
			details["since"] = pod.Status.StartTime.UTC().Format(time.RFC3339)
		}
		for i, c := range pod.Spec.Containers {
			s.images[c.Image] = true
			if i == 0 {
				details["image"] = c.Image
			}
		}
		restarts := int32(0)
		for _, c := range pod.Status.ContainerStatuses {
			restarts += c.RestartCount
		}
		if restarts > 0 {
			details["restarts"] = strconv.Itoa(int(restarts))
		}
		trouble, _ := podTrouble(pod)
		o := release.RunningObject{Kind: "pod", Name: pod.Name, State: state, Reason: oneLine(trouble), Details: details}
		encoded, err := json.Marshal(o)
		if err != nil {
			return err
		}
		if s.bytes += len(encoded); len(s.running.Objects) < maxDescribed && s.bytes <= maxDescribedBytes {
			s.running.Objects = append(s.running.Objects, o)
		}
	}
	return nil
}

// difference says what of an object is not as it was applied, or an empty text. It asks the server what an apply would change.
func (s *sight) difference(ctx context.Context, o, live *object) string {
	r := refOf(o)
	if live.GetLabels()[labelProject] != s.Project {
		return r.String() + " " + ownerOf(live)
	}
	// The step is another's where it was applied again unchanged.
	would, err := s.apply(ctx, o, false, true)
	switch {
	case len(conflicts(err)) > 0:
		causes := conflicts(err)
		who := strings.TrimPrefix(causes[0].Message, "conflict with ")
		who, _, _ = strings.Cut(who, " using ")
		return fmt.Sprintf("%s: %s was changed by %s", r, strings.TrimPrefix(causes[0].Field, "."), who)
	case err != nil:
		return "" // such as a kind whose writing is forbidden: what cannot be asked is no change
	}
	if path := differs("", strip(would), strip(live)); path != "" {
		return fmt.Sprintf("%s: %s is not as it was applied", r, strings.TrimPrefix(path, "."))
	}
	return ""
}

// strip gives what of an object may be compared.
func strip(o *object) map[string]any {
	content := o.DeepCopy().Object
	delete(content, "status")
	unstructured.RemoveNestedField(content, "metadata", "managedFields")
	unstructured.RemoveNestedField(content, "metadata", "resourceVersion")
	unstructured.RemoveNestedField(content, "metadata", "generation")
	return content
}

// differs gives the path of the first difference, or an empty text.
func differs(path string, a, b any) string {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok {
			return path
		}
		for _, name := range slices.Sorted(maps.Keys(a)) {
			if d := differs(path+"."+name, a[name], b[name]); d != "" {
				return d
			}
		}
		for _, name := range slices.Sorted(maps.Keys(b)) {
			if _, there := a[name]; !there {
				return path + "." + name
			}
		}
		return ""
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return path
		}
		for i := range a {
			if d := differs(fmt.Sprintf("%s[%d]", path, i), a[i], b[i]); d != "" {
				return d
			}
		}
		return ""
	}
	if a != b {
		return path
	}
	return ""
}

func (s *sight) conclude(n int) {
	if len(s.workloads) > 0 {
		s.running.Details["ready"] = fmt.Sprintf("%d/%d", s.good, s.desired)
		s.running.Details["workload"] = strings.Join(s.workloads, ", ")
	}
	if len(s.images) > 0 {
		s.running.Details["image"] = strings.Join(slices.Sorted(maps.Keys(s.images)), ", ")
	}
	first := func(state executor.RunState, reasons []string) bool {
		if len(reasons) == 0 {
			return false
		}
		s.running.State, s.running.Reason = state, oneLine(reasons[0])
		if more := len(reasons) - 1; more > 0 {
			s.running.Reason += fmt.Sprintf(" (and %d more)", more)
		}
		return true
	}
	switch {
	case s.there == 0 && n > 0:
		s.running.Reason = "all of its objects are gone"
	case s.idle && len(s.workloads) == 0: // nothing runs, whatever else is there
		first(executor.RunMissing, s.missing)
	case first(executor.RunChanged, s.missing), first(executor.RunChanged, s.changed), first(executor.RunDegraded, s.degraded):
	case len(s.workloads) > 0 && s.desired == 0:
		s.running.State, s.running.Reason = executor.RunStopped, "it is scaled to 0 pods"
	default:
		s.running.State = executor.RunOK
	}
}

// owns says whether a manager's applies own a field of an object.
func owns(o *object, who string, path ...string) bool {
	for _, entry := range o.GetManagedFields() {
		if entry.Manager != who || entry.Operation != "Apply" || entry.Subresource != "" || entry.FieldsV1 == nil {
			continue
		}
		var fields map[string]any
		if json.Unmarshal(entry.FieldsV1.Raw, &fields) != nil {
			continue
		}
		if _, found, _ := unstructured.NestedFieldNoCopy(fields, path...); found {
			return true
		}
	}
	return false
}
