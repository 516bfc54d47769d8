package fleet

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

const (
	// maxSteps is how many steps an agent runs at the same time.
	maxSteps = 16
	// maxRemembered is how many confirmed steps an agent remembers beyond their not_after.
	maxRemembered = 16
	// tombstoneLife is how long a step that was cancelled before it was ever asked for is remembered.
	tombstoneLife = 7 * 24 * time.Hour
)

// step is what the journal in memory knows of a step. It outlives sessions.
type step struct {
	notAfter time.Time
	started  time.Time
	command  bool
	result   *quicflowv1.StepResult // nil while it runs

	resultSent  *session // the last one in which it was
	resultAcked bool
	logSent     uint64 // in this session
	logAcked    uint64
}

func (p *step) logEnd() uint64 {
	if p.result == nil {
		return 0
	}
	return p.result.LogEnd
}

func (p *step) confirmed() bool { return p.result != nil && p.resultAcked && p.logAcked >= p.logEnd() }

func (p *step) response(id string) *quicflowv1.Response {
	status := &quicflowv1.StepStatus{StepId: id, State: quicflowv1.StepState_STEP_STATE_ACCEPTED}
	if p.result != nil {
		status.State, status.Result = quicflowv1.StepState_STEP_STATE_FINISHED, p.result
	}
	return &quicflowv1.Response{Body: &quicflowv1.Response_Step{Step: status}}
}

// foreign gives the answer to a step that cannot be this agent's.
func (a *simulated) foreign(id string) *quicflowv1.Response {
	_, _, client, _, err := release.ParseStepID(id)
	if err == nil && client != a.id {
		err = fmt.Errorf("step %s is not for %s", id, a.id)
	}
	if err != nil {
		return failure(quicflowv1.FailureCode_FAILURE_CODE_INVALID, "invalid step: "+err.Error())
	}
	return nil
}

// requestStep starts a step, a script or a command of any type, unless it is known, and says where it stands. answered is the
// session that gets the answer, nil if none does. a.mu is held.
func (a *simulated) requestStep(request *quicflowv1.StepRequest, answered *session) *quicflowv1.Response {
	f, id, now := a.fleet, request.GetStepId(), time.Now()
	if no := a.foreign(id); no != nil {
		return no
	}
	if p := a.steps[id]; p != nil {
		return p.response(id)
	}
	switch {
	case request.Spec == nil:
		return failure(quicflowv1.FailureCode_FAILURE_CODE_UNSUPPORTED, "the agent does not know this kind of step")
	case request.NotAfterUnixMs <= 0:
		return failure(quicflowv1.FailureCode_FAILURE_CODE_INVALID, "step request carries no not_after")
	case a.running >= maxSteps:
		return failure(quicflowv1.FailureCode_FAILURE_CODE_OVERLOADED, "the agent runs as many steps as it may")
	}
	p := &step{notAfter: time.UnixMilli(request.NotAfterUnixMs), started: now}
	a.remember(id, p)
	if now.After(p.notAfter) {
		p.result = executor.EndedWith(quicflowv1.Outcome_OUTCOME_REFUSED, "it came after its not_after")
		p.result.StepId = id
		return p.response(id)
	}
	a.running++
	if f.cfg.OnStep != nil {
		f.cfg.OnStep(a.id, id)
	}
	p.command = request.GetCommand() != nil
	if p.command && f.cfg.ExecMax == 0 && f.cfg.logEnd() == 0 {
		// As a real agent answers what ends at once: the first answer has the result, so it is not sent by itself.
		a.complete(id, p, f.outcome())
		p.resultSent = answered
		return p.response(id)
	}
	takes := f.cfg.ExecMin + rand.N(f.cfg.ExecMax-f.cfg.ExecMin+1)
	f.schedule.after(takes, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if p.result != nil {
			return // cancelled
		}
		a.complete(id, p, f.outcome())
		a.settleSteps()
	})
	return p.response(id)
}

func (f *Fleet) outcome() *quicflowv1.StepResult {
	if rand.Float64() < f.cfg.FailureRate {
		return &quicflowv1.StepResult{Outcome: quicflowv1.Outcome_OUTCOME_FAILED, ExitCode: 1, Error: "simulated failure"}
	}
	return &quicflowv1.StepResult{Outcome: quicflowv1.Outcome_OUTCOME_SUCCEEDED}
}

// complete gives a running step its result. a.mu is held.
func (a *simulated) complete(id string, p *step, result *quicflowv1.StepResult) {
	result.StepId = id
	result.StartedUnixMs, result.FinishedUnixMs = p.started.UnixMilli(), time.Now().UnixMilli()
	result.LogEnd = a.fleet.cfg.logEnd()
	if p.command {
		result.StdoutBytes, result.StdoutTail = result.LogEnd, printedTail(result.LogEnd)
	}
	p.result = result
	a.running--
	a.fleet.stats.steps.Add(1)
}

// cancelStep stops a step that runs, and keeps one that is not known from ever starting. a.mu is held.
func (a *simulated) cancelStep(id, reason string) *quicflowv1.Response {
	if no := a.foreign(id); no != nil {
		return no
	}
	cause := &executor.Cancelled{Reason: reason}
	p := a.steps[id]
	switch {
	case p == nil:
		p = &step{notAfter: time.Now().Add(tombstoneLife), result: executor.EndedWith(quicflowv1.Outcome_OUTCOME_REFUSED, "before the start: "+cause.Error())}
		p.result.StepId = id
		a.remember(id, p)
	case p.result == nil:
		a.complete(id, p, &quicflowv1.StepResult{Outcome: quicflowv1.Outcome_OUTCOME_CANCELLED, ExitCode: -1, Error: cause.Error()})
	}
	return p.response(id)
}

// remember takes a step into the journal, and drops what can be forgotten once there is much. a.mu is held.
func (a *simulated) remember(id string, p *step) {
	if a.steps == nil {
		a.steps = map[string]*step{}
	}
	if len(a.steps) >= maxRemembered {
		now := time.Now()
		for known, p := range a.steps {
			if p.confirmed() && now.After(p.notAfter) {
				delete(a.steps, known)
			}
		}
	}
	a.steps[id] = p
}

// settleSteps sends each result once a session until the hub confirms it, and offers logs. a.mu is held.
func (a *simulated) settleSteps() {
	s := a.session
	if s == nil || s.ended {
		return
	}
	for _, p := range a.steps {
		if p.result != nil && !p.resultAcked && p.resultSent != s {
			p.resultSent = s
			s.send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Result{Result: p.result}})
		}
	}
	s.offerLogs()
}

// resend begins a session: what the hub has not confirmed is sent again. a.mu is held.
func (a *simulated) resend() {
	for _, p := range a.steps {
		p.logSent = p.logAcked
	}
	a.settleSteps()
}

// resultAcked notes that the hub has stored a result. a.mu is held.
func (a *simulated) resultAcked(id string) {
	if p := a.steps[id]; p != nil && p.result != nil {
		p.resultAcked = true
	}
}
