package kubernetes

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/quicflow/quicflow/internal/failpoint"
)

// backTimeout bounds going back after a failure, which a cancelled step does, too.
const backTimeout = 3 * time.Minute

// back brings back what served before the step, or removes what the step made if that was nothing. It gives why the step failed.
func (d *deployment) back(ctx context.Context, why error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), backTimeout)
	defer cancel()
	d.Tools.Printf("it failed: %v", why)
	outcome, err := d.undo(ctx)
	if err != nil {
		outcome = "going back failed: " + err.Error()
	}
	d.Tools.Printf("%s", outcome)
	return fmt.Errorf("%w; %s", why, outcome)
}

// undo may be repeated, also from the beginning after its end.
func (d *deployment) undo(ctx context.Context) (outcome string, err error) {
	if d.inv, err = d.loadInventory(ctx, d.Project); err != nil {
		return "", err
	}
	serves := d.inv.ready()
	if serves == nil {
		return d.undoFirst(ctx)
	}
	objects, err := d.inv.applied(serves.Number)
	if err != nil {
		return "", err
	}
	d.Tools.Printf("going back to revision %d, %s", serves.Number, serves.Version)
	if err := d.applyAll(ctx, objects, d.spec.Force); err != nil {
		return "", err
	}
	failpoint.Here("kubernetes.back")
	var extra, kept []ref
	for _, r := range d.inv.Objects {
		switch {
		case hasObject(objects, r):
			kept = append(kept, r)
		case !r.Taken: // what was there before the step stays
			extra = append(extra, r)
		}
	}
	left, err := d.remove(ctx, extra)
	if err != nil {
		return "", err
	}
	wait := min(d.deadline(), backTimeout/2)
	if err := d.await(ctx, objects, time.Now(), wait); err != nil {
		return "", err
	}
	d.inv.Objects = append(kept, left...)
	version := serves.Version
	d.inv.Revisions = slices.DeleteFunc(d.inv.Revisions, func(r revision) bool { return !r.Ready })
	if err := d.save(ctx, d.inv); err != nil {
		return "", err
	}
	return version + " serves as before", nil
}

// undoFirst removes what a first deployment made.
func (d *deployment) undoFirst(ctx context.Context) (outcome string, err error) {
	made := slices.DeleteFunc(slices.Clone(d.inv.Objects), func(r ref) bool { return r.Taken })
	left, err := d.remove(ctx, made)
	if err != nil {
		return "", err
	}
	if len(left) > 0 {
		d.inv.Objects = left
		return "some of it is left", d.save(ctx, d.inv)
	}
	if err := d.deleteInventory(ctx, d.Project); err != nil {
		return "", err
	}
	return "what it had made is removed", nil
}
