package kubernetes

import (
	"context"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/quicflow/quicflow/internal/failpoint"
)

// How often a rollout is looked at: soon at first, then less often.
const (
	firstLook = 200 * time.Millisecond
	laterLook = 2 * time.Second
)

// watch is one wait for a rollout.
type watch struct {
	*deployment
	began time.Time
	told  map[ref]string // what the log says of each object
	limit time.Duration
}

// await waits until all objects are ready. Its error says in one line which is not, and why. A rollout that is ready when it is first
// looked at has not failed, however long ago it began.
func (d *deployment) await(ctx context.Context, objects []*object, began time.Time, deadline time.Duration) error {
	if d.warned == nil {
		d.warned, d.crashed = map[types.UID]bool{}, map[types.UID]string{}
	}
	w := &watch{deployment: d, began: began, told: map[ref]string{}, limit: deadline}
	waiting := objects
	for pause := firstLook; ; pause = min(pause*3/2, laterLook) {
		late := time.Since(began) > deadline
		var err error
		if waiting, err = w.look(ctx, waiting, late); err != nil || len(waiting) == 0 {
			return err
		}
		if late {
			return fmt.Errorf("%s is not ready after %s: the cluster does not answer", refOf(waiting[0]), deadline)
		}
		failpoint.Here("kubernetes.waiting")
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(min(pause, max(firstLook, time.Until(began.Add(deadline))))):
		}
	}
}

// look gives the objects that are not ready yet. When it is late there is none: it fails for the first.
func (w *watch) look(ctx context.Context, objects []*object, late bool) (waiting []*object, err error) {
	for i, o := range objects {
		r := refOf(o)
		if !isWorkload(r) && r.Kind != "CustomResourceDefinition" {
			continue
		}
		live, err := w.get(ctx, r)
		if err != nil {
			if ctx.Err() != nil || late {
				return nil, err
			}
			w.tell(r, err.Error())
			return append(waiting, objects[i:]...), nil
		}
		if live == nil && endsByItself(o) {
			w.tell(r, "it has ended and is gone")
			continue
		}
		if live == nil {
			return nil, fmt.Errorf("%s was deleted by someone else", r)
		}
		p, err := progressOf(live)
		if err != nil {
			return nil, err
		}
		if p.ready {
			w.tell(r, p.text)
			continue
		}
		if p.text == notTakenUp && !late {
			waiting = append(waiting, o)
			continue
		}
		if r.Kind == "StatefulSet" {
			if err := w.unblock(ctx, live); err != nil {
				return nil, err
			}
		}
		trouble := w.trouble(ctx, live, p)
		text := p.text
		if trouble != "" {
			text += ": " + trouble
		}
		if p.failed != "" {
			if trouble == "" {
				trouble = p.text
			}
			return nil, fmt.Errorf("%s: %s: %s", r, oneLine(p.failed), trouble)
		}
		if late {
			return nil, fmt.Errorf("%s is not ready in time (%s): %s", r, w.limit, text)
		}
		w.tell(r, text)
		waiting = append(waiting, o)
	}
	return waiting, nil
}

func (w *watch) tell(r ref, text string) {
	if text != "" && w.told[r] != text {
		w.told[r] = text
		w.Tools.Printf("%s: %s", r, text)
	}
}

// trouble says why a workload is not ready, and puts into the log what the cluster warns of, and what its crashed pods said last.
func (w *watch) trouble(ctx context.Context, live *object, p progress) string {
	r := refOf(live)
	if !isWorkload(r) {
		return ""
	}
	events := w.warnings(ctx, r.Namespace, w.began)
	for _, e := range events {
		if strings.HasPrefix(e.InvolvedObject.Name, r.Name) && !w.warned[e.UID] {
			w.warned[e.UID] = true
			w.Tools.Printf("%s %s: %s: %s", strings.ToLower(e.InvolvedObject.Kind), e.InvolvedObject.Name, e.Reason, oneLine(e.Message))
		}
	}
	text, pod, container := w.troubleOf(ctx, live, p, events)
	if pod == nil || !crashing(pod, container) {
		return text
	}
	last, said := w.crashed[pod.UID]
	if !said {
		for _, line := range w.crashLog(ctx, pod, container) {
			last = oneLine(line)
			w.Tools.Printf("[%s] %s", pod.Name, line)
		}
		w.crashed[pod.UID] = last
	}
	if last == "" || !strings.Contains(text, ": exit code ") || strings.Count(text, ": ") > 1 {
		return text // it says more than a code
	}
	return text + ": " + last
}

func crashing(pod *corev1.Pod, container string) bool {
	for _, s := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		if s.Name == container {
			return s.State.Terminated != nil || s.LastTerminationState.Terminated != nil
		}
	}
	return false
}

// unblock deletes pods of a StatefulSet's old revisions that are broken. The cluster would wait for them to be ready before it replaces
// them, for ever: no update that mends them would get through.
func (w *watch) unblock(ctx context.Context, live *object) error {
	set := &appsv1.StatefulSet{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(live.Object, set); err != nil {
		return err
	}
	strategy := set.Spec.UpdateStrategy
	if strategy.Type == appsv1.OnDeleteStatefulSetStrategyType || strategy.RollingUpdate != nil && strategy.RollingUpdate.Partition != nil && *strategy.RollingUpdate.Partition > 0 {
		return nil // not every pod is to be updated
	}
	pods, err := w.podsOf(ctx, live, false)
	if err != nil {
		return nil //nolint:nilerr // the next look tells
	}
	for i := range pods {
		pod := &pods[i]
		why, _ := podTrouble(pod)
		if why == "" || pod.DeletionTimestamp != nil || pod.Labels["controller-revision-hash"] == set.Status.UpdateRevision {
			continue
		}
		w.Tools.Printf("pod %s is of an old revision and broken, which holds the update up; deleting it: %s", pod.Name, oneLine(why))
		err := w.kube.Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("pod %s is of an old revision and holds the update up, and cannot be deleted: %w", pod.Name, w.say(err))
		}
	}
	return nil
}
