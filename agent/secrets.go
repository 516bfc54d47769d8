package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	"github.com/quicflow/quicflow/agent/executor"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// tidy removes all that a step with a stored result has left but for its spool: secrets, scripts, what its executor kept.
func (s *steps) tidy(id string) {
	dir := s.stepDir(id)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	for _, entry := range entries {
		if entry.Name() != spoolFile {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, entry.Name())))
		}
	}
	if err != nil {
		s.cfg.Logger.Error("step directory could not be tidied", "step_id", id, "error", err)
	}
}

// discard removes the secrets of a step that will not run. Its entry is claimed.
func (s *steps) discard(id string) {
	s.tidy(id)
	_ = os.Remove(s.stepDir(id)) // unless a spool is there
}

// withoutSecrets keeps a step's secrets in its directory, and gives the request without them: it goes into the journal.
func (s *steps) withoutSecrets(step *quicflowv1.StepRequest) (*quicflowv1.StepRequest, error) {
	if len(step.GetDeploy().GetSecrets()) == 0 {
		return step, nil
	}
	if err := executor.KeepSecrets(s.stepDir(step.StepId), step.GetDeploy().Secrets); err != nil {
		return nil, fmt.Errorf("keep the step's secrets: %w", err)
	}
	step = proto.Clone(step).(*quicflowv1.StepRequest)
	step.GetDeploy().Secrets = nil
	return step, nil
}
