// Package fleet simulates agents, many in one process: each has a certificate, a session, heartbeats, a journal in memory
// and an executor that only takes time. They share UDP sockets, one timer for heartbeats and one for all that is to happen
// later; an idle agent costs its QUIC connection and one goroutine that reads.
package fleet

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/internal/release"
)

// Config is everything a fleet needs.
type Config struct {
	// Servers are the addresses of hubs, host:port or host; each agent tries them in turn. Required.
	Servers []string
	// IDs are the clients to be. Required; Identities has a certificate for each.
	IDs []string
	// Identities are the clients' certificates. Required.
	Identities *Identities
	// Insecure skips checking the hub's certificate. Defaults to false.
	Insecure bool
	// ClassicKeyExchange offers X25519 and no ML-KEM, which costs both ends less, and fits a ClientHello into one packet.
	// Defaults to false, as agents do it.
	ClassicKeyExchange bool
	// Concurrency is how many agents dial at the same time. Defaults to 100.
	Concurrency int
	// ConnectTimeout is how long an agent that has never been accepted tries, from its first attempt on, before it has
	// failed for good. Defaults to 2 minutes.
	ConnectTimeout time.Duration
	// Backoff between two attempts to connect. Defaults to the agent's, 1 s to 60 s.
	Backoff agent.Backoff
	// AgentsPerSocket is how many share a UDP socket. Defaults to 5,000.
	AgentsPerSocket int

	// ExecMin and ExecMax are how long a step takes, a random time between them. Default to 0, no time; ExecMax defaults to
	// ExecMin.
	ExecMin, ExecMax time.Duration
	// FailureRate is the part of the steps that fail, 0 to 1. Defaults to 0.
	FailureRate float64
	// LogBytes is how much each step prints, in as few records as hold it. Defaults to 0.
	LogBytes int
	// LogLines is how many lines of 64 bytes each step prints, each a record of its own, in place of LogBytes. Defaults to 0.
	LogLines int

	// Labels of all hosts, sent to the hub. Defaults to none.
	Labels map[string]string
	// Version of the program, as the hub shows it. Defaults to "dev".
	Version string
	// OnStep, if set, is called when an agent starts a step. It must not block.
	OnStep func(clientID, stepID string)
	// Logger defaults to slog.Default.
	Logger *slog.Logger
}

// logEnd is how much each step prints, in bytes.
func (c *Config) logEnd() uint64 { return uint64(c.LogBytes) + uint64(c.LogLines)*lineSize }

func (c Config) withDefaults() (Config, error) {
	switch {
	case len(c.Servers) == 0:
		return c, release.Invalid("server", "a fleet needs the address of a server")
	case len(c.IDs) == 0:
		return c, release.Invalid("count", "a fleet needs at least one agent")
	case c.Identities == nil:
		return c, errors.New("fleet.Config.Identities is nil")
	case c.Concurrency < 0:
		return c, release.Invalid("concurrency", "is negative")
	case c.ExecMin < 0 || c.ExecMax < 0:
		return c, release.Invalid("exec_time", "is negative")
	case c.ExecMax != 0 && c.ExecMax < c.ExecMin:
		return c, release.Invalid("exec_time", "ends before it begins")
	case !(c.FailureRate >= 0 && c.FailureRate <= 1):
		return c, release.Invalid("failure_rate", "%v is not between 0 and 1", c.FailureRate)
	case c.LogBytes < 0:
		return c, release.Invalid("log_bytes", "is negative")
	case c.LogLines < 0:
		return c, release.Invalid("log_lines", "is negative")
	case c.LogLines > 0 && c.LogBytes > 0:
		return c, release.Invalid("log_lines", "steps print bytes or lines, not both")
	case c.ConnectTimeout < 0 || c.AgentsPerSocket < 0 || c.Backoff.Min < 0 || c.Backoff.Max < 0:
		return c, errors.New("fleet.Config has a negative value")
	}
	for _, id := range c.IDs {
		if c.Identities.certificates[id] == nil {
			return c, fmt.Errorf("fleet: %s has no certificate", id)
		}
	}
	servers := make([]string, 0, len(c.Servers))
	for _, server := range c.Servers {
		address, err := agent.Address(server)
		if err != nil {
			return c, err
		}
		servers = append(servers, address)
	}
	c.Servers = servers
	setDefault(&c.Concurrency, 100)
	setDefault(&c.ConnectTimeout, 2*time.Minute)
	setDefault(&c.AgentsPerSocket, 5000)
	setDefault(&c.Backoff.Min, time.Second)
	setDefault(&c.Backoff.Max, max(time.Minute, c.Backoff.Min))
	setDefault(&c.ExecMax, c.ExecMin)
	setDefault(&c.Version, "dev")
	setDefault(&c.Logger, slog.Default())
	return c, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
