package hub_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/release"
)

// registry is a Registry in memory. script, if set, is asked before each call and may fail or delay it.
type registry struct {
	mu       sync.Mutex
	script   func(method string) error
	epochs   map[string]int64
	online   map[string]bool
	goodbyes map[string]bool
	valid    map[string]bool // by serial
	batches  []int           // sizes of the ConnectClients calls
	touched  map[string]int
	released []string
	sessions []release.ClientSession
	facts    map[string]release.ClientFacts
	factSets [][]release.ClientFacts // the StoreFacts calls
}

func newRegistry() *registry {
	return &registry{epochs: map[string]int64{}, online: map[string]bool{}, goodbyes: map[string]bool{}, valid: map[string]bool{}, touched: map[string]int{},
		facts: map[string]release.ClientFacts{}}
}

func (r *registry) ask(method string) error {
	r.mu.Lock()
	script := r.script
	r.mu.Unlock()
	if script == nil {
		return nil
	}
	return script(method)
}

func (r *registry) setScript(f func(method string) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.script = f
}

func (r *registry) ConnectClients(_ context.Context, sessions []release.ClientSession) (map[string]release.ClientEntry, error) {
	if err := r.ask("ConnectClients"); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.batches = append(r.batches, len(sessions))
	entries := map[string]release.ClientEntry{}
	for _, s := range sessions {
		if _, known := r.epochs[s.ClientID]; !known {
			continue
		}
		if _, twice := entries[s.ClientID]; twice {
			return nil, errors.New("a client twice in one call")
		}
		if !r.valid[s.Serial] {
			entries[s.ClientID] = release.ClientEntry{Revoked: true}
			continue
		}
		r.epochs[s.ClientID]++
		r.online[s.ClientID] = true
		entries[s.ClientID] = release.ClientEntry{Epoch: r.epochs[s.ClientID], WantFacts: s.FactsHash != 0 && r.facts[s.ClientID].Hash != s.FactsHash}
	}
	r.sessions = append(r.sessions, sessions...)
	return entries, nil
}

func (r *registry) StoreFacts(_ context.Context, facts []release.ClientFacts) error {
	if err := r.ask("StoreFacts"); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range facts {
		r.facts[f.ClientID] = f
	}
	r.factSets = append(r.factSets, facts)
	return nil
}

func (r *registry) factsOf(id string) release.ClientFacts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.facts[id]
}

func (r *registry) DisconnectClients(_ context.Context, ends []release.ClientEnd) error {
	if err := r.ask("DisconnectClients"); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range ends {
		if r.epochs[e.ClientID] == e.Epoch {
			r.online[e.ClientID], r.goodbyes[e.ClientID] = false, e.Goodbye
		}
	}
	return nil
}

func (r *registry) TouchNode(_ context.Context, nodeID string, _ time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.touched[nodeID]++
	return nil
}

func (r *registry) ReleaseNode(_ context.Context, nodeID string, _ time.Time) error {
	if err := r.ask("ReleaseNode"); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.released = append(r.released, nodeID)
	return nil
}

func (r *registry) CertificateValid(_ context.Context, _, serial string) (bool, error) {
	if err := r.ask("CertificateValid"); err != nil {
		return false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.valid[serial], nil
}

func (r *registry) isOnline(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.online[id]
}

func (r *registry) saidGoodbye(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.goodbyes[id]
}

func (r *registry) forget(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.epochs, id)
}

// sink is a Sink in memory that keeps to the rules of the store: the first result wins, logs have no gap.
type sink struct {
	mu        sync.Mutex
	script    func(method string) error
	results   map[string]release.StepResult
	records   []release.LogRecord
	positions map[string]uint64
}

func newSink() *sink {
	return &sink{results: map[string]release.StepResult{}, positions: map[string]uint64{}}
}

func (s *sink) setScript(f func(method string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = f
}

func (s *sink) ask(method string) error {
	s.mu.Lock()
	script := s.script
	s.mu.Unlock()
	if script == nil {
		return nil
	}
	return script(method)
}

func (s *sink) RecordResults(_ context.Context, results []release.StepResult) ([]release.Step, error) {
	if err := s.ask("RecordResults"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range results {
		if r.Error == "poison" {
			return nil, errors.New("cannot store poison")
		}
	}
	var recorded []release.Step
	for _, r := range results {
		if _, known := s.results[r.StepID]; !known {
			s.results[r.StepID] = r
			recorded = append(recorded, release.Step{ID: r.StepID})
		}
	}
	return recorded, nil
}

func (s *sink) AppendLogs(_ context.Context, records []release.LogRecord) ([]release.LogAck, error) {
	if err := s.ask("AppendLogs"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[string]bool{}
	var acks []release.LogAck
	for _, r := range records {
		if r.Position == s.positions[r.StepID] {
			s.records = append(s.records, r)
			s.positions[r.StepID] = r.Next
		}
		seen[r.StepID] = true
	}
	for id := range seen {
		acks = append(acks, release.LogAck{StepID: id, Position: s.positions[id]})
	}
	return acks, nil
}

func (s *sink) result(stepID string) (release.StepResult, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.results[stepID]
	return r, ok
}

func (s *sink) stored() (results int, records []release.LogRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.results), slices.Clone(s.records)
}

// text is all that was stored of a step's output.
func (s *sink) text(stepID string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b []byte
	for _, r := range s.records {
		if r.StepID == stepID {
			b = append(b, r.Data...)
		}
	}
	return string(b)
}

// enroller answers RedeemJoinToken by the hash of the token, and makes certificates valid in a registry.
type enroller struct {
	registry *registry
	mu       sync.Mutex
	answers  map[string]error // by token hash; absent: auth.ErrTokenUnknown
	redeemed []auth.Redemption
}

func (e *enroller) RedeemJoinToken(_ context.Context, r auth.Redemption) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	err, known := e.answers[r.TokenHash]
	if !known {
		err = auth.ErrTokenUnknown
	}
	if err != nil {
		return fmt.Errorf("redeem: %w", err)
	}
	e.redeemed = append(e.redeemed, r)
	e.registry.mu.Lock()
	defer e.registry.mu.Unlock()
	if _, known := e.registry.epochs[r.ClientID]; !known {
		e.registry.epochs[r.ClientID] = 0
	}
	return nil
}

func (e *enroller) RecordCertificate(_ context.Context, _, serial string, _ time.Time, _ string) error {
	if err := e.registry.ask("RecordCertificate"); err != nil {
		return err
	}
	e.registry.mu.Lock()
	defer e.registry.mu.Unlock()
	e.registry.valid[serial] = true
	return nil
}
