package release

import "fmt"

// Verdict says whether a rollout may go on.
type Verdict struct {
	Stop   bool
	Reason string // why it stops, in words for a person
}

// JudgeWave decides after (or during) a wave. wave counts the targets of that wave, all those of the whole task.
//
// A canary is judged by its own budget, and by whether any of its hosts could be reached at all;
// everything is judged by the budget of the task.
func JudgeWave(s Strategy, w Wave, wave, all Counts) Verdict {
	if w.Canary {
		budget := s.Canary.MaxFailures.Of(w.Size)
		if n := wave.Charged(s.Offline); n > budget {
			return Verdict{Stop: true, Reason: fmt.Sprintf("%d of %d canary hosts failed; %d tolerated", n, w.Size, budget)}
		}
		if wave.Offline == w.Size {
			return Verdict{Stop: true, Reason: fmt.Sprintf("none of the %d canary hosts could be reached", w.Size)}
		}
		return Verdict{}
	}
	budget := s.MaxFailures.Of(all.Total)
	if n := all.Charged(s.Offline); n > budget {
		return Verdict{Stop: true, Reason: fmt.Sprintf("%d of %d hosts failed; %d tolerated", n, all.Total, budget)}
	}
	return Verdict{}
}

// FinalStatus gives the status of a task that went over all its targets.
func FinalStatus(all Counts) Status {
	if all.Succeeded == all.Total {
		return StatusSucceeded
	}
	if all.Succeeded == 0 {
		return StatusFailed
	}
	return StatusPartial
}

// BudgetLeft gives how many more hosts may be charged before JudgeWave stops the wave; never negative.
func BudgetLeft(s Strategy, w Wave, wave, all Counts) int {
	left := s.MaxFailures.Of(all.Total) - all.Charged(s.Offline)
	if w.Canary {
		left = s.Canary.MaxFailures.Of(w.Size) - wave.Charged(s.Offline)
	}
	return max(0, left)
}
