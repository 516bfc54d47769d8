package kubernetes

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// podsOf gives the pods of a workload, by name; with newest only those of its last revision.
func (c *cluster) podsOf(ctx context.Context, workload *object, newest bool) ([]corev1.Pod, error) {
	r := refOf(workload)
	if r.Kind == "Pod" {
		pod := corev1.Pod{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(workload.Object, &pod); err != nil {
			return nil, err
		}
		return []corev1.Pod{pod}, nil
	}
	selector, err := selectorOf(workload)
	if err != nil {
		return nil, err
	}
	owners := map[string]bool{string(workload.GetUID()): true}
	if r.Kind == "Deployment" {
		if owners, err = c.replicaSets(ctx, workload, selector, newest); err != nil {
			return nil, err
		}
	}
	var list *corev1.PodList
	err = c.try(ctx, func(ctx context.Context) (err error) {
		list, err = c.kube.Pods(r.Namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", c.say(err))
	}
	revision, _, _ := unstructured.NestedString(workload.Object, "status", "updateRevision")
	pods := slices.DeleteFunc(list.Items, func(pod corev1.Pod) bool {
		owner := metav1.GetControllerOf(&pod)
		return owner == nil || !owners[string(owner.UID)] || newest && r.Kind == "StatefulSet" && revision != "" && pod.Labels["controller-revision-hash"] != revision
	})
	slices.SortFunc(pods, func(a, b corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	return pods, nil
}

func selectorOf(workload *object) (string, error) {
	encoded, found, err := unstructured.NestedMap(workload.Object, "spec", "selector")
	if err != nil || !found {
		return "", fmt.Errorf("%s has no selector of pods", refOf(workload))
	}
	if workload.GetKind() == "ReplicationController" {
		texts, _, _ := unstructured.NestedStringMap(workload.Object, "spec", "selector")
		return labels.SelectorFromSet(texts).String(), nil
	}
	selector := metav1.LabelSelector{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(encoded, &selector); err != nil {
		return "", err
	}
	parsed, err := metav1.LabelSelectorAsSelector(&selector)
	if err != nil {
		return "", err
	}
	return parsed.String(), nil
}

const revisionAnnotation = "deployment.kubernetes.io/revision"

// replicaSets gives the UIDs of a Deployment's ReplicaSets, or of the newest alone.
func (c *cluster) replicaSets(ctx context.Context, deployment *object, selector string, newest bool) (map[string]bool, error) {
	r := refOf(deployment)
	client, _, err := c.resource(ref{APIVersion: "apps/v1", Kind: "ReplicaSet", Namespace: r.Namespace})
	if err != nil {
		return nil, c.say(err)
	}
	var list *unstructured.UnstructuredList
	err = c.try(ctx, func(ctx context.Context) (err error) {
		list, err = client.List(ctx, metav1.ListOptions{LabelSelector: selector})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list replica sets: %w", c.say(err))
	}
	uids := map[string]bool{}
	for _, set := range list.Items {
		if !metav1.IsControlledBy(&set, deployment) ||
			newest && set.GetAnnotations()[revisionAnnotation] != deployment.GetAnnotations()[revisionAnnotation] {
			continue
		}
		uids[string(set.GetUID())] = true
	}
	return uids, nil
}

// podTrouble says what keeps a pod from being ready, or an empty text. container is the one to blame, if there is one.
func podTrouble(pod *corev1.Pod) (text, container string) {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse {
			return "cannot be scheduled: " + condition.Message, ""
		}
	}
	statuses := slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
	for _, s := range statuses {
		if s.State.Waiting != nil {
			if text := waitingTrouble(s); text != "" {
				return text, s.Name
			}
		}
		if end := s.State.Terminated; end != nil && end.ExitCode != 0 {
			return endTrouble(s.Name, end), s.Name
		}
	}
	if pod.Status.Phase == corev1.PodFailed {
		return strings.TrimSpace("failed: " + pod.Status.Reason + " " + pod.Status.Message), ""
	}
	if pod.Status.Phase == corev1.PodSucceeded || podReady(pod) || pod.DeletionTimestamp != nil {
		return "", ""
	}
	for _, s := range statuses {
		if end := s.LastTerminationState.Terminated; end != nil && !s.Ready && end.ExitCode != 0 {
			return endTrouble(s.Name, end), s.Name
		}
	}
	for _, s := range pod.Status.ContainerStatuses {
		if s.State.Running != nil && !s.Ready {
			return "runs, but is not ready", s.Name
		}
	}
	return "", ""
}

func waitingTrouble(s corev1.ContainerStatus) string {
	w := s.State.Waiting
	switch w.Reason {
	case "", "ContainerCreating", "PodInitializing":
		return ""
	case "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable", "ImageInspectError":
		why := w.Message
		if _, after, found := strings.Cut(why, "ErrImagePull: "); found {
			why = after
		}
		if why == "" {
			why = w.Reason
		}
		return "image " + s.Image + " cannot be pulled: " + why
	case "CrashLoopBackOff":
		if end := s.LastTerminationState.Terminated; end != nil {
			return endTrouble(s.Name, end)
		}
		return "container " + s.Name + " crashes again and again"
	}
	return "container " + s.Name + ": " + w.Reason + ": " + w.Message
}

func endTrouble(container string, end *corev1.ContainerStateTerminated) string {
	text := fmt.Sprintf("container %s crashes: exit code %d", container, end.ExitCode)
	if end.Reason == "OOMKilled" {
		text = fmt.Sprintf("container %s takes more memory than its limit (OOMKilled)", container)
	}
	if message := lastLine(end.Message); message != "" {
		text += ": " + message
	}
	return text
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
}

// troubleOf says in one line why a workload is not ready: the most frequent trouble of its pods, or what the cluster says against
// making them. pod and container are whom it is about, if it is about one.
func (c *cluster) troubleOf(ctx context.Context, workload *object, p progress, events []corev1.Event) (text string, pod *corev1.Pod, container string) {
	pods, err := c.podsOf(ctx, workload, true)
	if err != nil {
		return err.Error(), nil, ""
	}
	type found struct {
		text, container string
		pod             *corev1.Pod
		n               int
	}
	var all []found
	for i := range pods {
		text, container := podTrouble(&pods[i])
		if text == "" {
			continue
		}
		if text == "runs, but is not ready" {
			if message := eventFor(events, "Pod", pods[i].Name, "Unhealthy"); message != "" {
				text += ": " + message
			}
		}
		at := slices.IndexFunc(all, func(f found) bool { return f.text == text })
		if at < 0 {
			all = append(all, found{text: text, container: container, pod: &pods[i]})
			at = len(all) - 1
		}
		all[at].n++
	}
	if len(all) > 0 {
		worst := slices.MaxFunc(all, func(a, b found) int { return a.n - b.n })
		return oneLine(worst.text), worst.pod, worst.container
	}
	if p.trouble != "" {
		return oneLine(p.trouble), nil, ""
	}
	if message := eventFor(events, workload.GetKind(), workload.GetName(), "FailedCreate"); message != "" {
		return oneLine(message), nil, ""
	}
	for i := range pods {
		if podReady(&pods[i]) {
			continue
		}
		for _, reason := range []string{"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "FailedScheduling"} {
			if message := eventFor(events, "Pod", pods[i].Name, reason); message != "" {
				return oneLine(message), &pods[i], ""
			}
		}
	}
	return "", nil, ""
}

// eventFor gives the message of the last event of a reason about an object.
func eventFor(events []corev1.Event, kind, name, reason string) string {
	for i := len(events) - 1; i >= 0; i-- {
		if e := events[i]; e.InvolvedObject.Kind == kind && e.InvolvedObject.Name == name && e.Reason == reason {
			return e.Message
		}
	}
	return ""
}

// warnings gives the warnings of a namespace since a time, the oldest first; none if they cannot be read.
func (c *cluster) warnings(ctx context.Context, namespace string, since time.Time) []corev1.Event {
	list, err := c.kube.Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "type=Warning", Limit: 500})
	if err != nil {
		return nil
	}
	when := func(e corev1.Event) time.Time {
		return latest(e.LastTimestamp.Time, e.EventTime.Time, e.CreationTimestamp.Time)
	}
	// The cluster's times are whole seconds, and its clock may be behind ours.
	events := slices.DeleteFunc(list.Items, func(e corev1.Event) bool { return when(e).Before(since.Add(-5 * time.Second)) })
	slices.SortStableFunc(events, func(a, b corev1.Event) int { return when(a).Compare(when(b)) })
	return events
}

func latest(times ...time.Time) time.Time {
	return slices.MaxFunc(times, time.Time.Compare)
}

// crashLog gives the last lines of a container that crashed.
func (c *cluster) crashLog(ctx context.Context, pod *corev1.Pod, container string) []string {
	const most = 16 << 10
	for _, previous := range []bool{true, false} {
		tail := int64(10)
		stream, err := c.kube.Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{Container: container, Previous: previous, TailLines: &tail}).Stream(ctx)
		if err != nil {
			continue
		}
		text, _ := io.ReadAll(io.LimitReader(stream, most))
		_ = stream.Close()
		if lines := strings.TrimSpace(string(text)); lines != "" {
			return strings.Split(lines, "\n")
		}
	}
	return nil
}
