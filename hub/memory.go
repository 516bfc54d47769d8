package hub

import (
	"context"
	"fmt"
	"path"
	"sync"
	"time"

	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/release"
)

// Memory is a Registry, a Sink and an Enroller in memory, for programs that are about messages. It knows the agents that
// joined since it was made; those of an earlier life have to join again, with a token of this one. Results and logs are
// acknowledged and dropped. All methods are safe for concurrent use.
type Memory struct {
	mu      sync.Mutex
	tokens  map[string]string // pattern by hash
	clients map[string]*memoryClient
}

type memoryClient struct {
	keyHash string
	serials map[string]bool // of certificates that are valid
	epoch   int64
}

var (
	_ Registry = (*Memory)(nil)
	_ Sink     = (*Memory)(nil)
	_ Enroller = (*Memory)(nil)
)

// NewMemory makes one that knows no one.
func NewMemory() *Memory {
	return &Memory{tokens: make(map[string]string), clients: make(map[string]*memoryClient)}
}

// JoinToken makes a token with which agents join a hub of this CA, each under an id of its own that matches the pattern, as
// path.Match does: "*" is every id. It has no end and no limit. The only error is a pattern that is none.
func (m *Memory) JoinToken(ca *CA, pattern string) (string, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return "", fmt.Errorf("make join token: pattern %q: %w", pattern, err)
	}
	token := auth.NewJoinToken(ca.Fingerprint())
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tokens[token.Hash()] = pattern
	return token.String(), nil
}

// RedeemJoinToken lets an id join once; with the key that it joined with it may ask again.
func (m *Memory) RedeemJoinToken(_ context.Context, r auth.Redemption) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	pattern, known := m.tokens[r.TokenHash]
	if !known {
		return auth.ErrTokenUnknown
	}
	if matched, _ := path.Match(pattern, r.ClientID); !matched {
		return auth.ErrIDNotAllowed
	}
	client := m.clients[r.ClientID]
	if client == nil {
		m.clients[r.ClientID] = &memoryClient{keyHash: r.PublicKeyHash, serials: make(map[string]bool)}
		return nil
	}
	if client.keyHash != r.PublicKeyHash {
		return auth.ErrIDTaken
	}
	return nil
}

// RecordCertificate makes a certificate valid.
func (m *Memory) RecordCertificate(_ context.Context, clientID, serial string, _ time.Time, _ string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	client := m.clients[clientID]
	if client == nil {
		return release.NotFound("client", clientID)
	}
	client.serials[serial] = true
	return nil
}

// CertificateValid says whether a certificate was recorded.
func (m *Memory) CertificateValid(_ context.Context, clientID, serial string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	client := m.clients[clientID]
	return client != nil && client.serials[serial], nil
}

// ConnectClients gives each session its epoch.
func (m *Memory) ConnectClients(_ context.Context, sessions []release.ClientSession) (map[string]release.ClientEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	entries := make(map[string]release.ClientEntry, len(sessions))
	for _, s := range sessions {
		client := m.clients[s.ClientID]
		switch {
		case client == nil:
		case !client.serials[s.Serial]:
			entries[s.ClientID] = release.ClientEntry{Revoked: true}
		default:
			client.epoch++
			entries[s.ClientID] = release.ClientEntry{Epoch: client.epoch}
		}
	}
	return entries, nil
}

// StoreFacts drops facts, which no session is asked for.
func (m *Memory) StoreFacts(context.Context, []release.ClientFacts) error { return nil }

// DisconnectClients does nothing: who is connected is the hub's to say.
func (m *Memory) DisconnectClients(context.Context, []release.ClientEnd) error { return nil }

// TouchNode does nothing.
func (m *Memory) TouchNode(context.Context, string, time.Time) error { return nil }

// ReleaseNode does nothing.
func (m *Memory) ReleaseNode(context.Context, string, time.Time) error { return nil }

// RecordResults drops results.
func (m *Memory) RecordResults(context.Context, []release.StepResult) ([]release.Step, error) {
	return nil, nil
}

// AppendLogs drops logs, and says that they are stored up to where the last one of each step ends.
func (m *Memory) AppendLogs(_ context.Context, records []release.LogRecord) ([]release.LogAck, error) {
	ends := make(map[string]uint64)
	for _, r := range records {
		ends[r.StepID] = max(ends[r.StepID], r.Next)
	}
	acks := make([]release.LogAck, 0, len(ends))
	for id, end := range ends {
		acks = append(acks, release.LogAck{StepID: id, Position: end})
	}
	return acks, nil
}
