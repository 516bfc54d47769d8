package release

import (
	"encoding/json"
	"time"

	"github.com/quicflow/quicflow/internal/lazyregexp"
)

// ClientStatus says whether an agent can be reached.
type ClientStatus string

// The statuses of a client.
const (
	ClientOnline       ClientStatus = "online"
	ClientReconnecting ClientStatus = "reconnecting" // its session ended without a goodbye less than session.offline_grace ago
	ClientOffline      ClientStatus = "offline"
)

// Client is an agent as the server knows it.
type Client struct {
	ID             string            `json:"client_id"`
	Online         bool              `json:"online"`
	Status         ClientStatus      `json:"status" enum:"online,reconnecting,offline"`
	Labels         map[string]string `json:"labels"`
	Hostname       string            `json:"hostname"`
	OS             string            `json:"os"`
	Arch           string            `json:"arch"`
	AgentVersion   string            `json:"agent_version"`
	Facts          json.RawMessage   `json:"facts,omitempty" doc:"What the agent says of its host: an object"`
	NodeID         string            `json:"node_id" doc:"The hub that holds, or last held, its session"`
	Address        string            `json:"address"`
	JoinedAt       time.Time         `json:"joined_at"`
	ConnectedAt    *time.Time        `json:"connected_at,omitempty"`
	DisconnectedAt *time.Time        `json:"disconnected_at,omitempty"`
	LastSeenAt     *time.Time        `json:"last_seen_at,omitempty"`
}

// ClientSession is what a hub writes when it accepts an agent.
type ClientSession struct {
	ClientID     string
	NodeID       string
	Address      string
	AgentVersion string
	Hostname     string
	OS           string
	Arch         string
	Labels       map[string]string
	JournalID    string
	Generation   uint64
	BootID       string
	FactsHash    uint64 // of what the agent would send as its facts; 0: it has none
	Serial       string // of the certificate that it showed; empty: not to be checked
	At           time.Time
}

// ClientEntry is what a store says to a ClientSession.
type ClientEntry struct {
	Epoch     int64 // of the session; 0 if Revoked
	Revoked   bool  // its certificate was revoked, or never recorded: there is no session
	WantFacts bool  // facts of another hash are stored
}

// ClientFacts is what an agent says of its host.
type ClientFacts struct {
	ClientID string
	Hash     uint64 // as in ClientSession
	JSON     []byte // an object
}

// ClientEnd is what a hub writes when a session ended. Only the session of that epoch is ended by it.
type ClientEnd struct {
	ClientID string
	Epoch    int64
	Goodbye  bool // the agent left on purpose: offline at once, no grace
	At       time.Time
	Seen     time.Time // when the agent was last heard of. Defaults to At.
}

var clientIDForm = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// ValidateClientID checks an identity before it gets a certificate.
func ValidateClientID(id string) error {
	if !clientIDForm.MatchString(id) {
		return Invalid("client_id", "%q must be 1 to 128 letters, digits, dots, dashes or underscores", id)
	}
	return nil
}
