package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// ask is how often a job is asked for.
const ask = 20 * time.Millisecond

// job is what the API says of one.
type job struct {
	ID         string         `json:"job_id"`
	Status     string         `json:"status"`
	Reason     string         `json:"reason"`
	Total      int            `json:"total"`
	Success    int            `json:"success_count"`
	Counts     map[string]int `json:"counts"`
	WorkflowID string         `json:"workflow_id"`
	CreatedAt  time.Time      `json:"created_at"`
	FinishedAt *time.Time     `json:"finished_at"`
}

func (j job) ended() bool { return j.FinishedAt != nil }

// request starts a job on all agents.
func (b *bench) request(ctx context.Context, w *world) (j job, err error) {
	order := map[string]any{"command_type": b.command, "selector": "*"}
	if b.concurrency > 0 {
		order["concurrency"] = b.concurrency
	}
	if b.command == "exec_shell" {
		order["payload"] = map[string]string{"command": "true"}
	}
	body, err := json.Marshal(order)
	if err != nil {
		return j, err
	}
	return j, w.server.Post(ctx, "/api/batch/execute", string(body), &j)
}

// finish waits for the end of a job. What did not succeed is said, and no error.
func (w *world) finish(ctx context.Context, j *job) error {
	for !j.ended() {
		if err := pause(ctx, ask); err != nil {
			return fmt.Errorf("job %s is %s, %v: %w", j.ID, j.Status, j.Counts, err)
		}
		if err := w.server.Get(ctx, "/api/batch/jobs/"+j.ID, j); err != nil {
			return err
		}
	}
	if j.Success != w.agents {
		fmt.Fprintf(os.Stderr, "job %s ended as %s: %s %v\n", j.ID, j.Status, j.Reason, j.Counts)
	}
	return nil
}

// target is one host of a job.
type target struct {
	ClientID   string     `json:"client_id"`
	Attempt    int        `json:"attempt"`
	StartedAt  *time.Time `json:"started_at"`
	FinishedAt *time.Time `json:"finished_at"`
}

// targets reads all hosts of a job.
func (w *world) targets(ctx context.Context, jobID string) (all []target, err error) {
	const page = 1000
	for {
		var some struct {
			Targets []target `json:"targets"`
		}
		if err := w.server.Get(ctx, fmt.Sprintf("/api/batch/jobs/%s/targets?limit=%d&offset=%d", jobID, page, len(all)), &some); err != nil {
			return nil, err
		}
		all = append(all, some.Targets...)
		if len(some.Targets) < page {
			return all, nil
		}
	}
}
