package kubernetes

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/failpoint"
)

// uninstall removes what the inventory lists, and then the inventory.
func (d *deployment) uninstall(ctx context.Context) error {
	if err := d.connect(ctx); err != nil {
		return interrupted(ctx, err)
	}
	inv, err := d.loadInventory(ctx, d.Project)
	if err != nil {
		return interrupted(ctx, err)
	}
	gone := executor.Running{Project: d.Project, Type: d.Config.Type, State: executor.RunMissing}
	switch {
	case inv.secret == nil:
		d.Tools.Printf("nothing of %s is in namespace %s", d.Project, d.namespace)
		d.Tools.Report(gone)
		return nil
	case inv.Target != d.Host.ClientID && !d.spec.Force:
		d.Tools.Printf("%s in namespace %s is of agent %s and stays; nothing is of this one", d.Project, d.namespace, inv.Target)
		d.Tools.Report(gone)
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// What is begun is ended, but by the step's time: the inventory still has what is left.
	ending := context.WithoutCancel(ctx)
	left, err := d.remove(ending, inv.Objects)
	if err != nil {
		return err
	}
	for _, r := range left {
		d.Tools.Printf("%s stays", r)
	}
	failpoint.Here("kubernetes.deleted")
	if err := d.deleteInventory(ending, d.Project); err != nil {
		return err
	}
	d.Tools.Report(gone)
	return nil
}

// remove deletes objects, those that need others first, and waits until they are gone with their pods. It never deletes a
// namespace, what is not the project's any more, or what a user marked. left are those that could not be deleted.
func (d *deployment) remove(ctx context.Context, refs []ref) (left []ref, err error) {
	ctx, cancel := context.WithTimeout(ctx, backTimeout)
	defer cancel()
	refs = slices.Clone(refs)
	slices.SortStableFunc(refs, func(a, b ref) int { return cmp.Compare(rank(b), rank(a)) })
	going := map[ref]types.UID{}
	for _, r := range refs {
		live, err := d.get(ctx, r)
		switch {
		case err != nil:
			return refs, err
		case live == nil:
			continue
		case r.Kind == "Namespace":
			d.Tools.Printf("%s stays", r)
			continue
		case live.GetLabels()[labelProject] != d.Project:
			d.Tools.Printf("%s is not %s's any more and stays", r, d.Project)
			continue
		case live.GetAnnotations()[annotationKeep] == "true":
			d.Tools.Printf("%s stays, as its annotation %s asks", r, annotationKeep)
			continue
		}
		if err := d.delete(ctx, r, live.GetUID()); err != nil {
			return refs, fmt.Errorf("delete %s: %w", r, d.say(err))
		}
		going[r] = live.GetUID()
		d.Tools.Printf("deleting %s", r)
		failpoint.Here("kubernetes.deleting")
	}
	for len(going) > 0 {
		for r, uid := range going {
			live, err := d.get(ctx, r)
			if err != nil {
				return refs, err
			}
			if live == nil || live.GetUID() != uid {
				delete(going, r)
				continue
			}
			if ctx.Err() != nil {
				return refs, fmt.Errorf("%s is still there, for its finalizers %s", r, strings.Join(live.GetFinalizers(), ", "))
			}
		}
		if len(going) == 0 {
			break
		}
		select {
		case <-ctx.Done():
			var r ref
			for r = range going {
				break
			}
			return refs, fmt.Errorf("%s is not gone after %s", r, backTimeout)
		case <-time.After(200 * time.Millisecond):
		}
	}
	return nil, nil
}

// delete deletes an object if it is still the same one; its pods go before it.
func (d *deployment) delete(ctx context.Context, r ref, uid types.UID) error {
	first := metav1.DeletePropagationForeground
	err := d.try(ctx, func(ctx context.Context) error {
		client, _, err := d.resource(r)
		if err != nil {
			return err
		}
		return client.Delete(ctx, r.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}, PropagationPolicy: &first})
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}
