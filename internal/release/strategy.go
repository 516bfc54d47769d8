package release

import "time"

// Bounds and defaults of a strategy.
const (
	DefaultMaxParallel = 100
	MaxMaxParallel     = 5000
	MaxSoak            = 30 * 24 * time.Hour
	MaxWaves           = 100
)

// Strategy says how a task goes over its targets.
type Strategy struct {
	Canary      *Canary   `json:"canary,omitempty" doc:"Hosts that go first. Without it the rollout begins with the first wave"`
	Waves       []float64 `json:"waves,omitempty" doc:"Rising shares in percent of all targets that have been done after each wave, as 25, 50, 100. Defaults to one wave of all that is left"`
	MaxParallel int       `json:"max_parallel,omitempty" minimum:"0" maximum:"5000" doc:"Hosts at work at any moment. Defaults to 100"`
	MaxFailures Limit     `json:"max_failures,omitempty" doc:"Failed or unknown hosts that are tolerated, as a count (3) or a share of all targets (10%). Defaults to 0"`
	OnFailure   OnFailure `json:"on_failure,omitempty" enum:"stop,rollback," doc:"When the budget is spent: stop there, or roll back every touched host. Defaults to stop"`
	Offline     Offline   `json:"offline,omitempty" enum:"skip,fail," doc:"Whether a host that cannot be reached is only counted, or charged as a failure. Defaults to skip"`
}

// Canary is the first group of hosts.
type Canary struct {
	Percent     float64   `json:"percent" minimum:"0" maximum:"100" doc:"Share of the targets, rounded up to at least one host; 0 means no canary"`
	Soak        Duration  `json:"soak,omitempty" doc:"How long the canary hosts run before the rest follows. Defaults to 0s"`
	Promote     Promotion `json:"promote,omitempty" enum:"auto,manual," doc:"auto goes on after the soak, manual waits for a person. Defaults to auto"`
	MaxFailures Limit     `json:"max_failures,omitempty" doc:"Failed or unknown canary hosts that are tolerated. Defaults to 0"`
}

// Promotion says what ends the canary phase.
type Promotion string

// The ways to promote.
const (
	PromoteAuto   Promotion = "auto"
	PromoteManual Promotion = "manual"
)

// OnFailure says what follows when the failure budget is spent.
type OnFailure string

// What may follow.
const (
	OnFailureStop     OnFailure = "stop"
	OnFailureRollback OnFailure = "rollback"
)

// Offline says what an unreachable host counts as.
type Offline string

// What it may count as.
const (
	OfflineSkip Offline = "skip"
	OfflineFail Offline = "fail"
)

// WithDefaults fills what was left out.
func (s Strategy) WithDefaults() Strategy {
	if s.MaxParallel == 0 {
		s.MaxParallel = DefaultMaxParallel
	}
	if s.OnFailure == "" {
		s.OnFailure = OnFailureStop
	}
	if s.Offline == "" {
		s.Offline = OfflineSkip
	}
	if s.Canary != nil {
		c := *s.Canary
		if c.Promote == "" {
			c.Promote = PromoteAuto
		}
		s.Canary = &c
	}
	return s
}

// Validate checks a strategy as a user gave it, with or without its defaults.
func (s Strategy) Validate() error {
	if c := s.Canary; c != nil {
		if !(c.Percent >= 0 && c.Percent <= 100) {
			return Invalid("strategy.canary.percent", "%v is not between 0 and 100", c.Percent)
		}
		if c.Soak.Std() > MaxSoak {
			return Invalid("strategy.canary.soak", "%s is longer than the limit of %s", c.Soak, MaxSoak)
		}
		switch c.Promote {
		case "", PromoteAuto, PromoteManual:
		default:
			return Invalid("strategy.canary.promote", "%q is neither auto nor manual", c.Promote)
		}
	}
	if len(s.Waves) > MaxWaves {
		return Invalid("strategy.waves", "has %d waves; the limit is %d", len(s.Waves), MaxWaves)
	}
	last := 0.0
	for _, w := range s.Waves {
		if !(w > last && w <= 100) {
			return Invalid("strategy.waves", "%v must rise, from more than 0 to at most 100", s.Waves)
		}
		last = w
	}
	if s.MaxParallel < 0 || s.MaxParallel > MaxMaxParallel {
		return Invalid("strategy.max_parallel", "%d is not between 1 and %d", s.MaxParallel, MaxMaxParallel)
	}
	switch s.OnFailure {
	case "", OnFailureStop, OnFailureRollback:
	default:
		return Invalid("strategy.on_failure", "%q is neither stop nor rollback", s.OnFailure)
	}
	switch s.Offline {
	case "", OfflineSkip, OfflineFail:
	default:
		return Invalid("strategy.offline", "%q is neither skip nor fail", s.Offline)
	}
	return nil
}
