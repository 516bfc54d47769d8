package wrapper

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/durable"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// planVersion is that of the step directory's files. A step of another version is unknown.
const planVersion = 2

// plan is all that a wrapper needs to know, but for secrets. It is kept as JSON in the step's directory.
type plan struct {
	Version   int            `json:"version"`
	Type      release.Type   `json:"type"`
	Step      *executor.Step `json:"step"`
	Command   []byte         `json:"command,omitempty"` // a CommandStep
	KillGrace time.Duration  `json:"kill_grace"`
	MaxLog    uint64         `json:"max_log,omitempty"` // bytes of output that are kept; 0: all
}

func newPlan(t release.Type, step *executor.Step, killGrace time.Duration) (*plan, error) {
	p := &plan{Version: planVersion, Type: t, Step: step, KillGrace: killGrace}
	if step.Log != nil {
		p.MaxLog = step.Log.MaxBytes()
	}
	if step.Command != nil {
		var err error
		if p.Command, err = proto.Marshal(step.Command); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// timeout is the time that the step has for everything but its health check.
func (p *plan) timeout() time.Duration {
	_, timeout, _ := p.Step.Config.Common()
	if p.Step.Command != nil {
		timeout = release.Duration(time.Duration(p.Step.Command.TimeoutMs) * time.Millisecond)
	}
	if timeout <= 0 {
		return release.DefaultStepTimeout
	}
	return timeout.Std()
}

func (d stepDir) create(p *plan) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return err
	}
	if err := durable.WriteFile(d.path(planFile), text, 0o600); err != nil {
		return err
	}
	// If the directory got lost in a power cut, so would the gate within it.
	return durable.SyncDir(filepath.Dir(string(d)))
}

// readPlan gives the plan with the step's secrets.
func (d stepDir) readPlan() (*plan, error) {
	text, err := os.ReadFile(d.path(planFile))
	if err != nil {
		return nil, err
	}
	p := new(plan)
	switch err := json.Unmarshal(text, p); {
	case err != nil:
		return nil, err
	case p.Version != planVersion:
		return nil, fmt.Errorf("the step was begun by another version of the agent (its files are of version %d, not %d)", p.Version, planVersion)
	case p.Step == nil:
		return nil, errors.New("the plan has no step")
	}
	p.Step.Dir = string(d)
	if len(p.Command) > 0 {
		p.Step.Command = new(quicflowv1.CommandStep)
		if err := proto.Unmarshal(p.Command, p.Step.Command); err != nil {
			return nil, err
		}
		return p, nil
	}
	p.Step.Secrets, err = executor.ReadSecrets(string(d))
	return p, err
}
