package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/failpoint"
	"github.com/quicflow/quicflow/internal/release"
)

// deployment is a step in progress.
type deployment struct {
	*executor.Run
	spec *release.KubernetesSpec

	*cluster
	inv *inventory

	warned  map[types.UID]bool   // events that are in the log
	crashed map[types.UID]string // the last line of pods that crashed; their last lines are in the log
}

// failureKey is what is kept of why a deployment goes back, before anything is undone: a later run goes on with that.
const failureKey = "failure"

func (d *deployment) connect(ctx context.Context) (err error) {
	d.cluster, err = connect(ctx, d.spec, &warner{tools: d.Tools, said: map[string]bool{}})
	if err != nil {
		return err
	}
	d.Tools.Printf("cluster %s, Kubernetes %s, namespace %s", d.server, d.version, d.namespace)
	return nil
}

// deploy brings the cluster to the step's version; if that fails, back to what served before.
func (d *deployment) deploy(ctx context.Context) error {
	objects, err := build(d.Step)
	if err != nil {
		return err
	}
	var failed executor.Failure
	if there, err := d.Tools.Kept(failureKey, &failed); err != nil || there {
		if err == nil {
			err = d.connect(context.WithoutCancel(ctx))
		}
		if err != nil {
			return err
		}
		return d.back(ctx, failed.Err())
	}
	if err := d.connect(ctx); err != nil {
		return interrupted(ctx, err)
	}
	if err := d.script(ctx, "pre_script", d.spec.PreScript); err != nil {
		return err
	}
	if err := d.prepare(ctx, &objects); err != nil {
		return interrupted(ctx, err)
	}
	failpoint.Here("kubernetes.checked")
	began, err := d.record(ctx, objects)
	if err != nil {
		return interrupted(ctx, err)
	}
	failpoint.Here("kubernetes.recorded")

	err = d.rollOut(ctx, objects, began)
	if errors.Is(err, executor.ErrUnknown) {
		return err
	}
	if err != nil {
		err = interrupted(ctx, err)
		if err := d.Tools.Keep(failureKey, executor.FailureOf(err)); err != nil {
			return err
		}
		failpoint.Here("kubernetes.failed")
		return d.back(ctx, err)
	}
	if err := d.finish(ctx, objects); err != nil {
		return err
	}
	failpoint.Here("kubernetes.done")
	running, err := d.describe(ctx, d.inv)
	if err != nil {
		d.Tools.Printf("what runs now cannot be told: %v", err)
		return nil
	}
	d.Tools.Report(running)
	return nil
}

// rollOut is what a failure is undone of.
func (d *deployment) rollOut(ctx context.Context, objects []*object, began time.Time) error {
	if err := d.applyAll(ctx, objects, d.spec.Force); err != nil {
		return err
	}
	failpoint.Here("kubernetes.applied")
	if err := d.await(ctx, objects, began, d.deadline()); err != nil {
		return err
	}
	failpoint.Here("kubernetes.ready")
	if err := d.script(ctx, "post_script", d.spec.PostScript); err != nil {
		return err
	}
	env := d.Tools.Environment(true)
	maps.Copy(env, d.spec.Env)
	return d.Tools.Health(ctx, env)
}

func (d *deployment) deadline() time.Duration {
	if d.spec.Deadline == 0 {
		return release.DefaultKubeDeadline
	}
	return d.spec.Deadline.Std()
}

func (d *deployment) script(ctx context.Context, name, text string) error {
	if text == "" {
		return nil
	}
	env := d.Tools.Environment(true)
	maps.Copy(env, d.spec.Env)
	interpreter := d.spec.Interpreter
	if interpreter == "" {
		interpreter = release.DefaultInterpreter
	}
	return d.Tools.Script(ctx, executor.Script{Name: name, Text: text, Interpreter: interpreter, Env: env})
}

// prepare finds out whether the cluster would take the objects, without a change to any of them. A rollback's become those of then.
func (d *deployment) prepare(ctx context.Context, objects *[]*object) (err error) {
	made, err := d.ensureNamespace(ctx, d.spec.CreateNamespace)
	if err != nil {
		return err
	}
	if made {
		d.Tools.Printf("made namespace %s", d.namespace)
	}
	if d.inv, err = d.loadInventory(ctx, d.Project); err != nil {
		return err
	}
	if owner := d.inv.Target; owner != "" && owner != d.Host.ClientID {
		if !d.spec.Force {
			return fmt.Errorf("%s in namespace %s was deployed by agent %s; give each target a namespace of its own, or set force to take it over",
				d.Project, d.namespace, owner)
		}
		d.Tools.Printf("taking %s over from agent %s", d.Project, owner)
	}
	if then := d.inv.ofVersion(d.Version); d.Action == release.StepRollbackTo && then != nil {
		if err := d.recorded(then.Number, objects); err != nil {
			return err
		}
		d.Tools.Printf("going back to revision %d, %s", then.Number, then.Version)
	}
	for _, o := range *objects {
		if err := d.checkOne(ctx, o, *objects); err != nil {
			return err
		}
	}
	return nil
}

// recorded gives the objects of an earlier revision as this step's, with the registry's login of today.
func (d *deployment) recorded(number int, objects *[]*object) error {
	then, err := d.inv.applied(number)
	if err != nil {
		return err
	}
	for i, o := range then {
		for _, now := range *objects {
			if d.spec.Registry != nil && o.GetKind() == "Secret" && now.GetKind() == "Secret" && o.GetName() == now.GetName() {
				now.SetNamespace(o.GetNamespace())
				then[i] = now
			}
		}
		stamp(then[i], d.Step)
	}
	*objects = then
	return nil
}

// checkOne places an object and asks the cluster whether it would take it.
func (d *deployment) checkOne(ctx context.Context, o *object, all []*object) error {
	if err := d.place(o); err != nil {
		if !meta.IsNoMatchError(err) {
			return d.sayApply(refOf(o), err)
		}
		scope := definedScope(o, all)
		if scope == "" {
			return d.sayApply(refOf(o), err)
		}
		if scope == "Namespaced" {
			o.SetNamespace(orNamespace(o.GetNamespace(), d.namespace))
		}
		return nil // the cluster cannot tell before it knows the kind
	}
	r := refOf(o)
	live, err := d.get(ctx, r)
	if err != nil {
		return err
	}
	if live != nil && r.Kind != "Namespace" && live.GetLabels()[labelProject] != d.Project && !d.spec.Force {
		return fmt.Errorf("%s is there and %s; give it another name, or set force to take it over", r, ownerOf(live))
	}
	_, err = d.apply(ctx, o, d.spec.Force, true)
	if apierrors.IsNotFound(err) && makesNamespace(all, r.Namespace) {
		return nil
	}
	if err != nil {
		return d.sayApply(r, err)
	}
	return nil
}

// ownerOf says whose an object is that is not this project's.
func ownerOf(o *object) string {
	if project := o.GetLabels()[labelProject]; project != "" {
		return "is project " + project + "'s"
	}
	who := o.GetLabels()[labelManagedBy]
	if who == "" && len(o.GetManagedFields()) > 0 {
		who = o.GetManagedFields()[0].Manager
	}
	if who == "" {
		return "is not QuicFlow's"
	}
	return "is not QuicFlow's but of " + who
}

// definedScope gives the scope of an object's kind as one of the other objects defines it.
func definedScope(o *object, all []*object) string {
	for _, definition := range all {
		if definition.GetKind() != "CustomResourceDefinition" {
			continue
		}
		group, _, _ := unstructured.NestedString(definition.Object, "spec", "group")
		kind, _, _ := unstructured.NestedString(definition.Object, "spec", "names", "kind")
		if gvk := o.GroupVersionKind(); gvk.Group == group && gvk.Kind == kind {
			scope, _, _ := unstructured.NestedString(definition.Object, "spec", "scope")
			return scope
		}
	}
	return ""
}

func makesNamespace(all []*object, name string) bool {
	for _, o := range all {
		if o.GetKind() == "Namespace" && o.GetName() == name {
			return true
		}
	}
	return false
}

// record writes down what is about to be applied, and gives the time at which that began first.
func (d *deployment) record(ctx context.Context, objects []*object) (time.Time, error) {
	if mine := d.inv.ofStep(d.ID); mine != nil {
		return mine.At, nil // an earlier run of this step's did
	}
	began := time.Now().UTC()
	number, err := d.inv.begin(revision{Version: d.Version, ConfigID: d.ConfigID, TaskID: d.TaskID, StepID: d.ID, At: began}, objects)
	if err != nil {
		return began, err
	}
	d.inv.Target = d.Host.ClientID
	for _, o := range objects {
		r := refOf(o)
		if has(d.inv.Objects, r) {
			continue
		}
		if live, err := d.get(ctx, r); err != nil {
			return began, err
		} else if live != nil && live.GetLabels()[labelProject] != d.Project {
			r.Taken = true
			if r.Kind != "Namespace" {
				d.Tools.Printf("taking over %s, which %s", r, ownerOf(live))
			}
		}
		d.inv.Objects = append(d.inv.Objects, r)
	}
	if err := d.save(ctx, d.inv); err != nil {
		return began, err
	}
	d.Tools.Printf("revision %d: %s", number, plural(len(objects), "object"))
	return began, nil
}

// applyAll applies objects in their order.
func (d *deployment) applyAll(ctx context.Context, objects []*object, force bool) error {
	for i, o := range objects {
		r := refOf(o)
		live, err := d.get(ctx, r)
		if err != nil {
			return err
		}
		if err := d.handOver(ctx, live, o); err != nil {
			return err
		}
		result, err := d.apply(ctx, o, force, false)
		if err != nil {
			return d.sayApply(r, err)
		}
		switch {
		case live == nil:
			d.Tools.Printf("made %s", r)
		case live.GetGeneration() != result.GetGeneration() || live.GetGeneration() == 0 && live.GetResourceVersion() != result.GetResourceVersion():
			d.Tools.Printf("changed %s", r)
		default:
			d.Tools.Printf("%s is as it should be", r)
		}
		if r.Kind == "CustomResourceDefinition" {
			if err := d.await(ctx, []*object{o}, time.Now(), requestTimeout); err != nil {
				return err
			}
			d.mapper.Reset()
		}
		if i == 0 {
			failpoint.Here("kubernetes.applying")
		}
	}
	return nil
}

// handOver keeps the number of replicas that we set before and do not any more: someone else is to set it from now on. An apply
// without it would fall back to one replica.
func (d *deployment) handOver(ctx context.Context, live, o *object) error {
	if live == nil {
		return nil
	}
	replicas, found, _ := unstructured.NestedInt64(live.Object, "spec", "replicas")
	_, wanted, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "replicas")
	if !found || wanted || !owns(live, manager, "f:spec", "f:replicas") {
		return nil
	}
	keep := &object{Object: map[string]any{"apiVersion": o.GetAPIVersion(), "kind": o.GetKind(),
		"metadata": map[string]any{"name": o.GetName(), "namespace": o.GetNamespace()}, "spec": map[string]any{"replicas": replicas}}}
	if _, err := d.applyAs(ctx, handover, keep, true, false); err != nil {
		return d.sayApply(refOf(o), err)
	}
	d.Tools.Printf("the replicas of %s stay at %d, for others to set", refOf(o), replicas)
	return nil
}

// finish removes what the version does not have any more, and records that it serves.
func (d *deployment) finish(ctx context.Context, objects []*object) error {
	var old, kept []ref
	for _, r := range d.inv.Objects {
		if !hasObject(objects, r) {
			old = append(old, r)
		} else {
			kept = append(kept, r)
		}
	}
	left, err := d.remove(context.WithoutCancel(ctx), old)
	if err != nil {
		d.Tools.Printf("what the version does not have any more is not all gone, the next deployment tries again: %v", err)
	}
	failpoint.Here("kubernetes.pruned")
	d.inv.Objects = append(kept, left...)
	mine := d.inv.ofStep(d.ID)
	if mine == nil {
		return fmt.Errorf("the record of this deployment is gone from namespace %s", d.namespace)
	}
	if !mine.Ready {
		mine.Ready, mine.ReadyAt = true, time.Now().UTC()
	}
	keep := defaultHistory
	if d.spec.History != nil {
		keep = *d.spec.History
	}
	d.inv.trim(keep)
	return d.save(context.WithoutCancel(ctx), d.inv)
}

func hasObject(objects []*object, r ref) bool {
	for _, o := range objects {
		if r.same(refOf(o)) {
			return true
		}
	}
	return false
}
