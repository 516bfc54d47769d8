// Package kubernetes is the executor of Kubernetes projects. It applies objects, generated from a configuration's fields or taken from
// its manifest, with server-side apply, watches their rollout, and keeps an inventory in the cluster of what it applied: from that it
// prunes, rolls back and uninstalls.
package kubernetes

import (
	"context"
	"errors"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/release"
)

// Worker carries out steps of Kubernetes projects.
type Worker struct{}

var _ executor.Worker = (*Worker)(nil)

// New makes a Worker.
func New() *Worker { return &Worker{} }

// Type is what it carries out.
func (*Worker) Type() release.Type { return release.TypeKubernetes }

// Check makes the objects of the step.
func (*Worker) Check(step *executor.Step) error {
	if step.Action == release.StepUninstall {
		return nil
	}
	_, err := build(step)
	return err
}

// Work carries out a step.
func (*Worker) Work(ctx context.Context, run *executor.Run) error {
	d := &deployment{Run: run, spec: run.Config.Kubernetes}
	if run.Action == release.StepUninstall {
		return d.uninstall(ctx)
	}
	return d.deploy(ctx)
}

// Probe asks the API server that projects without a kubeconfig of their own would be deployed to.
func (*Worker) Probe(ctx context.Context) (executor.Capability, error) {
	c, err := connect(ctx, &release.KubernetesSpec{}, nil)
	if err != nil {
		return executor.Capability{}, err
	}
	details := map[string]string{"server": c.server, "namespace": c.namespace}
	if c.inside {
		details["in_cluster"] = "true"
	}
	return executor.Capability{Type: release.TypeKubernetes, Version: c.version, Details: details}, nil
}

// warner writes the API server's warnings, such as those of deprecated kinds, into the step's log, each once.
type warner struct {
	tools executor.Tools
	said  map[string]bool
}

// HandleWarningHeader implements rest.WarningHandler.
func (w *warner) HandleWarningHeader(code int, _, text string) {
	if code == 299 && text != "" && !w.said[text] {
		w.said[text] = true
		w.tools.Printf("the cluster warns: %s", oneLine(text))
	}
}

// interrupted gives the cause of a context's end, if that is why something failed.
func interrupted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && !errors.Is(err, executor.ErrUnknown) {
		return context.Cause(ctx)
	}
	return err
}
