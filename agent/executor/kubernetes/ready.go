package kubernetes

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// progress is how far an object's rollout is.
type progress struct {
	ready   bool
	failed  string // why it never will be ready by itself; empty if it may
	text    string // such as "1 of 3 pods are ready"
	desired int32
	good    int32 // pods that are ready
	// trouble is what the cluster itself says against making pods, such as a quota.
	trouble string
}

var applied = progress{ready: true}

// notTakenUp is what an object is for a moment after each change.
const notTakenUp = "the cluster has not taken it up"

// progressOf says how far an object is. One that has no rollout is done when it is applied.
func progressOf(o *object) (progress, error) {
	switch o.GroupVersionKind().GroupKind() {
	case schema.GroupKind{Group: "apps", Kind: "Deployment"}:
		return typed(o, deploymentProgress)
	case schema.GroupKind{Group: "apps", Kind: "StatefulSet"}:
		return typed(o, statefulSetProgress)
	case schema.GroupKind{Group: "apps", Kind: "DaemonSet"}:
		return typed(o, daemonSetProgress)
	case schema.GroupKind{Group: "apps", Kind: "ReplicaSet"}:
		return typed(o, replicaSetProgress)
	case schema.GroupKind{Group: "batch", Kind: "Job"}:
		return typed(o, jobProgress)
	case schema.GroupKind{Kind: "Pod"}:
		return typed(o, podProgress)
	case schema.GroupKind{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}:
		return definitionProgress(o), nil
	}
	return applied, nil
}

func typed[T any](o *object, progress func(*T) progress) (p progress, err error) {
	value := new(T)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, value); err != nil {
		return p, fmt.Errorf("read %s: %w", refOf(o), err)
	}
	return progress(value), nil
}

func replicasOf(replicas *int32) int32 {
	if replicas == nil {
		return 1
	}
	return *replicas
}

func deploymentProgress(d *appsv1.Deployment) progress {
	want, is := replicasOf(d.Spec.Replicas), d.Status
	p := progress{desired: want, good: is.ReadyReplicas}
	if d.Spec.Paused {
		return progress{ready: true, desired: want, good: is.ReadyReplicas, text: "its rollout is paused"}
	}
	if is.ObservedGeneration < d.Generation {
		p.text = notTakenUp
		return p
	}
	for _, c := range is.Conditions {
		switch {
		case c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue:
			p.trouble = c.Message
		case c.Type == appsv1.DeploymentProgressing && c.Reason == "ProgressDeadlineExceeded":
			p.failed = "its progress deadline is over"
		}
	}
	switch {
	case is.UpdatedReplicas < want:
		p.text = fmt.Sprintf("%d of %d pods are updated", is.UpdatedReplicas, want)
	case is.AvailableReplicas < is.UpdatedReplicas:
		p.text = fmt.Sprintf("%d of %d updated pods are ready", is.AvailableReplicas, want)
	case is.Replicas > is.UpdatedReplicas:
		p.text = fmt.Sprintf("%s still to be stopped", plural(int(is.Replicas-is.UpdatedReplicas), "old pod"))
	default:
		p.ready, p.failed = true, ""
		p.text = fmt.Sprintf("%d of %d pods ready", is.AvailableReplicas, want)
	}
	return p
}

func statefulSetProgress(s *appsv1.StatefulSet) progress {
	want, is := replicasOf(s.Spec.Replicas), s.Status
	p := progress{desired: want, good: is.ReadyReplicas}
	if is.ObservedGeneration < s.Generation {
		p.text = notTakenUp
		return p
	}
	update := want
	if s.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType {
		update = 0
	} else if rolling := s.Spec.UpdateStrategy.RollingUpdate; rolling != nil && rolling.Partition != nil {
		update = max(0, want-*rolling.Partition)
	}
	updated := is.UpdatedReplicas
	if is.UpdateRevision == is.CurrentRevision {
		updated = is.Replicas
	}
	switch {
	case updated < update:
		p.text = fmt.Sprintf("%d of %d pods are updated", updated, update)
	case is.AvailableReplicas < want:
		p.text = fmt.Sprintf("%d of %d pods are ready", is.AvailableReplicas, want)
	case is.Replicas > want:
		p.text = fmt.Sprintf("%s still to be stopped", plural(int(is.Replicas-want), "pod"))
	default:
		p.ready = true
		p.text = fmt.Sprintf("%d of %d pods ready", is.AvailableReplicas, want)
	}
	return p
}

func daemonSetProgress(d *appsv1.DaemonSet) progress {
	is := d.Status
	want := is.DesiredNumberScheduled
	p := progress{desired: want, good: is.NumberReady}
	if is.ObservedGeneration < d.Generation {
		p.text = notTakenUp
		return p
	}
	switch {
	case is.UpdatedNumberScheduled < want && d.Spec.UpdateStrategy.Type != appsv1.OnDeleteDaemonSetStrategyType:
		p.text = fmt.Sprintf("%d of %d pods are updated", is.UpdatedNumberScheduled, want)
	case is.NumberAvailable < want:
		p.text = fmt.Sprintf("%d of %d pods are ready", is.NumberAvailable, want)
	default:
		p.ready = true
		p.text = fmt.Sprintf("%d of %d pods ready", is.NumberAvailable, want)
		if want == 0 {
			p.text = "no node is for it"
		}
	}
	return p
}

func replicaSetProgress(r *appsv1.ReplicaSet) progress {
	want := replicasOf(r.Spec.Replicas)
	p := progress{desired: want, good: r.Status.ReadyReplicas}
	p.text = fmt.Sprintf("%d of %d pods are ready", r.Status.AvailableReplicas, want)
	for _, c := range r.Status.Conditions {
		if c.Type == appsv1.ReplicaSetReplicaFailure && c.Status == corev1.ConditionTrue {
			p.trouble = c.Message
		}
	}
	p.ready = r.Status.ObservedGeneration >= r.Generation && r.Status.AvailableReplicas >= want
	return p
}

// endsByItself says whether the cluster deletes an object when it has ended.
func endsByItself(o *object) bool {
	_, found, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "ttlSecondsAfterFinished")
	return found && o.GetKind() == "Job"
}

func jobProgress(j *batchv1.Job) progress {
	want := int32(1)
	if j.Spec.Completions != nil {
		want = *j.Spec.Completions
	}
	p := progress{desired: want, good: j.Status.Succeeded}
	p.text = fmt.Sprintf("%d of %d pods succeeded", j.Status.Succeeded, want)
	if j.Spec.Suspend != nil && *j.Spec.Suspend {
		p.ready, p.text = true, "it is suspended"
	}
	for _, c := range j.Status.Conditions {
		switch {
		case c.Status != corev1.ConditionTrue:
		case c.Type == batchv1.JobComplete:
			p.ready = true
		case c.Type == batchv1.JobFailed:
			p.failed = c.Message
		}
	}
	return p
}

func podProgress(pod *corev1.Pod) progress {
	p := progress{desired: 1, text: "it is " + string(pod.Status.Phase)}
	switch {
	case pod.Status.Phase == corev1.PodFailed:
		p.failed = "it failed"
	case pod.Status.Phase == corev1.PodSucceeded || podReady(pod):
		p.ready, p.good, p.text = true, 1, "it is ready"
	}
	return p
}

func podReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// definitionProgress waits until objects of the kind can be made.
func definitionProgress(o *object) progress {
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range conditions {
		if m, ok := c.(map[string]any); ok && m["type"] == "Established" && m["status"] == string(metav1.ConditionTrue) {
			return applied
		}
	}
	return progress{text: "the cluster does not serve it yet"}
}
