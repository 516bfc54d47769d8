package workflows

import (
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// Register makes every workflow known to a worker.
func Register(r worker.WorkflowRegistry) {
	r.RegisterWorkflowWithOptions(ReleaseWorkflow, workflow.RegisterOptions{Name: ReleaseWorkflowName})
	r.RegisterWorkflowWithOptions(BatchJobWorkflow, workflow.RegisterOptions{Name: BatchJobWorkflowName})
	r.RegisterWorkflowWithOptions(ScheduledReleaseWorkflow, workflow.RegisterOptions{Name: ScheduledReleaseWorkflowName})
}
