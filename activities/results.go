package activities

import (
	"sync"

	"github.com/quicflow/quicflow/internal/release"
)

// Results hands what the hub of this process stored to the dispatches that wait for it. It is safe for concurrent use; the
// zero value is ready.
type Results struct {
	mu    sync.Mutex
	tasks map[string]map[string]*dispatchStep // that are waited for, by task and step id
}

// Stored tells of steps that results have changed. It never blocks.
func (r *Results) Stored(steps []release.Step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range steps {
		if step := r.tasks[steps[i].TaskID][steps[i].ID]; step != nil {
			step.dispatch.decide(step, steps[i].State)
		}
	}
}

// expect begins to hand over the results of steps of one task.
func (r *Results) expect(taskID string, steps []*dispatchStep) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tasks == nil {
		r.tasks = map[string]map[string]*dispatchStep{}
	}
	byID := r.tasks[taskID]
	if byID == nil {
		byID = make(map[string]*dispatchStep, len(steps))
		r.tasks[taskID] = byID
	}
	for _, step := range steps {
		byID[step.ID] = step
	}
}

// forget ends what expect began. A dispatch that has taken over a step since keeps it.
func (r *Results) forget(taskID string, steps []*dispatchStep) {
	r.mu.Lock()
	defer r.mu.Unlock()
	byID := r.tasks[taskID]
	for _, step := range steps {
		if byID[step.ID] == step {
			delete(byID, step.ID)
		}
	}
	if len(byID) == 0 {
		delete(r.tasks, taskID)
	}
}
