package script

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/durable"
	"github.com/quicflow/quicflow/internal/release"
)

// record is what the agent's host knows of a project that was deployed by scripts: what the last steps left.
type record struct {
	Version  string    `json:"version,omitempty"`
	ConfigID string    `json:"config_id,omitempty"`
	TaskID   string    `json:"task_id,omitempty"`
	StepID   string    `json:"step_id,omitempty"`
	Since    time.Time `json:"since,omitzero"`
	Release  string    `json:"release,omitempty"`   // path of the release directory, of a version with artifacts
	Current  string    `json:"current,omitempty"`   // path of the link that leads to it
	WorkDirs []string  `json:"work_dirs,omitempty"` // where releases of the project may be
	Before   *record   `json:"before,omitempty"`    // that of the step before
	Failed   string    `json:"failed,omitempty"`    // a later step failed: which
}

func recordPath(host executor.Host, project string) string {
	return filepath.Join(host.DataDir, "deployed", project+".json")
}

// before gives the record as it was before a step: another run of its work may have written one already.
func (r record) before(stepID string) record {
	switch {
	case r.StepID != stepID:
		return r
	case r.Before != nil:
		return *r.Before
	}
	return record{}
}

// readRecord reports false if nothing was deployed.
func readRecord(host executor.Host, project string) (r record, found bool, err error) {
	text, err := os.ReadFile(recordPath(host, project))
	if errors.Is(err, os.ErrNotExist) {
		return r, false, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		return r, false, fmt.Errorf("read what was deployed: %w", err)
	}
	return r, true, nil
}

func writeRecord(host executor.Host, project string, r record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := recordPath(host, project)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return durable.WriteFile(path, text, 0o600)
}

// keepRecord notes what the step left, and reports it.
func (j *job) keepRecord(before record, failure error) error {
	r := before
	switch {
	case failure != nil && !j.begun:
		return nil
	case failure != nil: // why is in the step's result, and may be secret
		r.Failed = fmt.Sprintf("the %s of task %s did not succeed", j.Action, j.TaskID)
	case j.Action == release.StepUninstall:
		if err := os.Remove(recordPath(j.Host, j.Project)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		j.Tools.Report(executor.Running{Project: j.Project, Type: release.TypeScript, State: executor.RunMissing})
		return nil
	default:
		r = record{Version: j.Version, ConfigID: j.ConfigID, TaskID: j.TaskID, StepID: j.ID, Since: time.Now().UTC().Truncate(time.Millisecond)}
		r.WorkDirs = before.WorkDirs
		before.Before = nil
		r.Before = &before
		if len(j.spec.Artifacts) > 0 {
			r.Release, r.Current = j.env[varReleaseDir], j.current()
			if !slices.Contains(r.WorkDirs, j.workDir) {
				r.WorkDirs = append(slices.Clone(r.WorkDirs), j.workDir)
			}
		}
	}
	if err := writeRecord(j.Host, j.Project, r); err != nil {
		return fmt.Errorf("note what was deployed: %w", err)
	}
	j.Tools.Report(r.running(j.Project))
	return nil
}

// running says what runs by looking at the release that the record speaks of. Of a version without artifacts there is nothing to look
// at but the record.
func (r record) running(project string) executor.Running {
	running := executor.Running{
		Project: project, Type: release.TypeScript, State: executor.RunOK, Version: r.Version, ConfigID: r.ConfigID, TaskID: r.TaskID, Since: r.Since,
	}
	switch {
	case r.Version == "":
		running.State = executor.RunMissing
	case r.Failed != "":
		running.State = executor.RunDegraded
	}
	running.Reason = r.Failed
	if r.Release == "" {
		return running
	}
	running.Details = map[string]string{"path": r.Release}
	target, err := os.Readlink(r.Current)
	if err == nil && !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(r.Current), target)
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		running.State, running.Reason = executor.RunMissing, r.Current+" is not there"
	case err != nil:
		running.State, running.Reason = executor.RunChanged, r.Current+" is no link"
	case target != r.Release:
		running.State, running.Reason = executor.RunChanged, r.Current+" leads to "+target
		running.Details["path"] = target
	default:
		if info, err := os.Stat(r.Release); err != nil || !info.IsDir() {
			running.State, running.Reason = executor.RunMissing, r.Release+" is not there"
		}
	}
	return running
}

// Describe says what the host's own record of the project says, and what its release link leads to.
func (Worker) Describe(_ context.Context, what executor.Deployed) (executor.Running, error) {
	r, found, err := readRecord(what.Host, what.Project)
	if err != nil {
		return executor.Running{}, err
	}
	if !found {
		return executor.Running{Project: what.Project, Type: release.TypeScript, State: executor.RunMissing}, nil
	}
	return r.running(what.Project), nil
}
