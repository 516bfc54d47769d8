package main

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What a Pod's annotations ask of the kubelet.
const (
	annotationBehaviour  = "lab/behaviour"   // one of the behaviours
	annotationReadyAfter = "lab/ready-after" // a duration; a Pod that ends by itself ends then
	annotationLogEvery   = "lab/log-every"   // a duration: a line is written that often
)

// behaviours are what may become of a Pod. The annotation says which, else the end of the first container's image: team/app:v2-crash.
const (
	runs    = ""        // it becomes ready; or succeeds, if it is not to be restarted
	unready = "unready" // it runs and does not become ready
	missing = "missing" // its image cannot be pulled
	crashes = "crash"   // it ends with exit code 3 again and again
	oom     = "oom"     // it takes more memory than it may
)

func behaviour(pod *corev1.Pod) string {
	if b := pod.Annotations[annotationBehaviour]; b != "" {
		return b
	}
	image := pod.Spec.Containers[0].Image
	for _, b := range []string{unready, missing, crashes, oom} {
		if strings.HasSuffix(image, "-"+b) {
			return b
		}
	}
	return runs
}

func duration(pod *corev1.Pod, annotation string) time.Duration {
	d, _ := time.ParseDuration(pod.Annotations[annotation])
	return d
}

// status gives what the kubelet says of a Pod at this time, an event that goes with it, and in what time it will say something else.
func status(pod *corev1.Pod, now time.Time) (corev1.PodStatus, *corev1.Event, time.Duration) {
	is := *pod.Status.DeepCopy()
	started := metav1.NewTime(is.StartTime.Time)
	left := started.Add(duration(pod, annotationReadyAfter)).Sub(now)
	does := behaviour(pod)
	job := pod.Spec.RestartPolicy != corev1.RestartPolicyAlways

	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: started}}
	state, last, restarts := running, corev1.ContainerState{}, int32(0)
	ready, phase := false, corev1.PodRunning
	var event *corev1.Event
	switch {
	case left > 0:
	case does == missing:
		image := pod.Spec.Containers[0].Image
		phase = corev1.PodPending
		state = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff",
			Message: `Back-off pulling image "` + image + `": ErrImagePull: failed to resolve reference "` + image + `": not found`}}
		event = newEvent(pod, "Failed", `Failed to pull image "`+image+`": not found`)
	case does == crashes || does == oom:
		end := corev1.ContainerStateTerminated{ExitCode: 3, Reason: "Error", Message: "fatal: the lab lets it crash\n", StartedAt: started, FinishedAt: started}
		if does == oom {
			end = corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled", StartedAt: started, FinishedAt: started}
		}
		if pod.Spec.RestartPolicy == corev1.RestartPolicyNever {
			state, phase = corev1.ContainerState{Terminated: &end}, corev1.PodFailed
			break
		}
		state = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff",
			Message: "back-off 40s restarting failed container=" + pod.Spec.Containers[0].Name + " pod=" + pod.Name}}
		last, restarts = corev1.ContainerState{Terminated: &end}, 3
		event = newEvent(pod, "BackOff", "Back-off restarting failed container "+pod.Spec.Containers[0].Name+" in pod "+pod.Name)
	case does == unready:
		event = newEvent(pod, "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
	case job:
		phase = corev1.PodSucceeded
		state = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed", StartedAt: started, FinishedAt: metav1.NewTime(now)}}
	default:
		ready = true
	}

	is.Phase = phase
	is.Conditions = nil
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled {
			is.Conditions = append(is.Conditions, c)
		}
	}
	for _, c := range []struct {
		kind corev1.PodConditionType
		is   bool
	}{{corev1.PodInitialized, true}, {corev1.ContainersReady, ready}, {corev1.PodReady, ready}} {
		condition := corev1.PodCondition{Type: c.kind, Status: corev1.ConditionFalse, LastTransitionTime: metav1.NewTime(now)}
		if c.is {
			condition.Status = corev1.ConditionTrue
		}
		for _, was := range pod.Status.Conditions {
			if was.Type == c.kind && was.Status == condition.Status {
				condition.LastTransitionTime = was.LastTransitionTime
			}
		}
		is.Conditions = append(is.Conditions, condition)
	}
	is.ContainerStatuses = nil
	begun := state.Running != nil
	for _, c := range pod.Spec.Containers {
		is.ContainerStatuses = append(is.ContainerStatuses, corev1.ContainerStatus{Name: c.Name, Image: c.Image, ImageID: c.Image,
			ContainerID: "lab://" + string(pod.UID) + "/" + c.Name, Ready: ready, Started: &begun, State: state, LastTerminationState: last, RestartCount: restarts})
	}
	return is, event, max(0, left)
}

func newEvent(pod *corev1.Pod, reason, message string) *corev1.Event {
	now := metav1.Now()
	return &corev1.Event{ObjectMeta: metav1.ObjectMeta{GenerateName: pod.Name + ".", Namespace: pod.Namespace}, Type: corev1.EventTypeWarning,
		Reason: reason, Message: message, Count: 1, FirstTimestamp: now, LastTimestamp: now, Source: corev1.EventSource{Component: "kubelet"}}
}

// same says whether the kubelet would tell nothing new. An end that was told stays told.
func same(was, is *corev1.PodStatus) bool {
	return was.Phase == is.Phase && was.PodIP == is.PodIP && equality.Semantic.DeepEqual(was.ContainerStatuses, is.ContainerStatuses) &&
		equality.Semantic.DeepEqual(was.Conditions, is.Conditions)
}
