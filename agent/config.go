package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/quic-go/quic-go"

	"github.com/quicflow/quicflow/agent/artifacts"
	"github.com/quicflow/quicflow/agent/command"
	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/internal/lazyregexp"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// DefaultPort is a hub's port where an address has none.
const DefaultPort = "8474"

// Executor carries out steps. Run is called once in the life of a step, from a goroutine of its own; calls for different
// steps run concurrently. It writes output to log, whose directory is the step's own, and gives the result; the agent
// fills in the step id, the end of the log and times that are zero.
//
// When ctx ends with executor.Cancelled as its cause, the step is to be stopped, and the result says what came of that.
// When it ends for another cause, the agent stops: Run returns soon, with the result or with nil. After nil the step is
// unfinished in the journal, and the next life of the agent resumes it, or reports it as unknown.
type Executor interface {
	Run(ctx context.Context, step *quicflowv1.StepRequest, log *spool.Writer) *quicflowv1.StepResult
}

// Resumer is an Executor that knows what became of a step which Run did not see the end of. Its arguments and its result
// are those of Run. Steps of an Executor that is no Resumer are unknown after a restart.
type Resumer interface {
	Resume(ctx context.Context, step *quicflowv1.StepRequest, log *spool.Writer) *quicflowv1.StepResult
}

// Observer is an Executor that can look at what it deployed. Its methods are safe for concurrent use, also with steps.
type Observer interface {
	// Describe looks at what runs of a project. What cannot be found out is RunUnknown.
	Describe(ctx context.Context, what *quicflowv1.DescribeProject) executor.Running
	// Logs writes the output of what runs of a project, in any number of writes. See executor.Executor.
	Logs(ctx context.Context, what *quicflowv1.DescribeProject, options executor.LogOptions, out io.Writer) error
}

// RefLister is an Executor that can look into repositories.
type RefLister interface {
	// Refs lists the branches and tags of a git project's repository.
	Refs(ctx context.Context, deploy *quicflowv1.DeployStep) ([]release.GitRef, error)
}

// Welcome is what a hub says to a session that it accepts.
type Welcome = quicflowv1.Welcome

// Handler answers a message. Several may run at the same time; ctx ends with the session.
type Handler func(ctx context.Context, message *quicflowv1.Message) (*quicflowv1.Message, error)

// Identity is what an agent shows to a hub and what it trusts.
type Identity struct {
	Certificate tls.Certificate // with Leaf
	Roots       *x509.CertPool
}

// Backoff says how long an agent waits before it dials again: at first anything up to Min, then a random part between half
// and all of a time that doubles from twice Min to Max, or to 5 s while the hub answers that it is busy. It starts over after
// a session that the hub accepted.
type Backoff struct {
	// Min defaults to 1s.
	Min time.Duration
	// Max defaults to 60s.
	Max time.Duration
}

// Config is everything an agent needs.
type Config struct {
	// Servers are the addresses of hubs, host:port or host; each is tried in turn. Required.
	Servers []string
	// ClientID is the identity to join as. Required.
	ClientID string
	// DataDir holds identity, journal and the files of running steps. Made with mode 0700. Required.
	DataDir string
	// Executor carries out steps. Defaults to nil: steps are answered as unsupported.
	Executor Executor
	// Labels of the host, sent to the hub. Defaults to none.
	Labels map[string]string
	// Token is a join token, used when DataDir holds no identity. Defaults to none.
	Token string
	// Identity, if set, is used instead of one in DataDir; it is neither stored nor renewed. Defaults to nil.
	Identity *Identity
	// Insecure skips checking the hub's certificate. For tests only. Defaults to false.
	Insecure bool
	// Backoff between two attempts to connect.
	Backoff Backoff
	// MaxRetries ends Run after so many failed attempts in a row. Defaults to 0, no limit.
	MaxRetries int
	// MaxSteps is how many steps run at the same time, beside light commands such as ping; more are answered as overloaded.
	// Defaults to 16.
	MaxSteps int
	// MaxJournal bounds the steps that the hub has not confirmed; more are answered as journal_full. Defaults to 10,000.
	MaxJournal int
	// MaxRemembered bounds the steps that are confirmed, and remembered until they cannot be asked for again. Defaults to
	// 100,000.
	MaxRemembered int
	// MaxLog bounds the output of one step that is kept, in bytes. What comes after that is left out; the log says where it was
	// cut and how much is missing, and the result has its end. Defaults to 256 MiB.
	MaxLog int64
	// LogIdle is how long credit for logs is kept without anything to send. A hub takes no more than a minute. Defaults to 10s.
	LogIdle time.Duration
	// Commands are types of command beside ping, echo and get_status, or in their place. A type is 1 to 64 small letters,
	// digits, dots, dashes and underscores. Defaults to none.
	Commands map[string]command.Command
	// Facts, if set, gives what the agent cannot know itself of its host; package host has one. Defaults to none: hostname, os,
	// arch, number of CPUs, labels, version and capabilities are told all the same.
	Facts func(context.Context) Facts
	// FactsInterval is how often the facts are looked at; changed ones are told. Defaults to 10m.
	FactsInterval time.Duration
	// Artifacts is the cache of artifacts, which gets from the hub what it does not have. Defaults to none.
	Artifacts *artifacts.Cache
	// Handlers answer messages by their type, beside the built-in ping and echo. Defaults to none.
	Handlers map[string]Handler
	// OnConnect and OnDisconnect, if set, are called when a session was accepted and when it has ended. They must not
	// block.
	OnConnect    func(*quicflowv1.Welcome)
	OnDisconnect func(cause error)
	// Version of the program, as the hub shows it. Defaults to "dev".
	Version string
	// BootID tells one boot of the host from the next. Defaults to the kernel's, where it has one.
	BootID string
	// Transport, if set, is shared with others and left open. Defaults to a UDP socket for each connection.
	Transport *quic.Transport
	// NoSync leaves fsync out of the journal: for simulated agents. Defaults to false.
	NoSync bool
	// Logger defaults to slog.Default.
	Logger *slog.Logger
}

// withDefaults checks c and gives a copy that is filled.
func (c Config) withDefaults() (Config, error) {
	if err := release.ValidateClientID(c.ClientID); err != nil {
		return c, err
	}
	switch {
	case len(c.Servers) == 0:
		return c, release.Invalid("server", "an agent needs the address of a server")
	case c.DataDir == "":
		return c, errors.New("agent.Config.DataDir is empty")
	case c.Backoff.Min < 0 || c.Backoff.Max < 0 || c.MaxRetries < 0 || c.MaxSteps < 0 || c.MaxJournal < 0 || c.MaxRemembered < 0 || c.MaxLog < 0 || c.LogIdle < 0 || c.FactsInterval < 0:
		return c, errors.New("agent.Config has a negative value")
	}
	for name, own := range c.Commands {
		if !commandForm.MatchString(name) || own.Run == nil {
			return c, fmt.Errorf("agent.Config.Commands: %q is not the name of a command, or has no Run", name)
		}
	}
	for name, value := range c.Labels {
		if err := validateLabel(name, value); err != nil {
			return c, err
		}
	}
	dir, err := filepath.Abs(c.DataDir)
	if err != nil {
		return c, fmt.Errorf("find data directory: %w", err)
	}
	c.DataDir = dir
	servers := make([]string, 0, len(c.Servers))
	for _, server := range c.Servers {
		address, err := withPort(server)
		if err != nil {
			return c, err
		}
		servers = append(servers, address)
	}
	c.Servers = servers
	c.Labels = maps.Clone(c.Labels)
	if c.Backoff.Min == 0 {
		c.Backoff.Min = time.Second
	}
	if c.Backoff.Max == 0 {
		c.Backoff.Max = max(time.Minute, c.Backoff.Min)
	}
	if c.MaxSteps == 0 {
		c.MaxSteps = 16
	}
	if c.MaxLog == 0 {
		c.MaxLog = 256 << 20
	}
	if c.FactsInterval == 0 {
		c.FactsInterval = factsInterval
	}
	if c.LogIdle == 0 {
		c.LogIdle = 10 * time.Second
	}
	if c.OnConnect == nil {
		c.OnConnect = func(*quicflowv1.Welcome) {}
	}
	if c.OnDisconnect == nil {
		c.OnDisconnect = func(error) {}
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	if c.BootID == "" {
		c.BootID = bootID()
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Logger = c.Logger.With("client_id", c.ClientID)
	c.Handlers = maps.Clone(c.Handlers)
	c.Commands = maps.Clone(c.Commands)
	return c, nil
}

var commandForm = lazyregexp.New(`^[a-z0-9._-]{1,64}$`)

var labelForm = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$`)

func validateLabel(name, value string) error {
	switch {
	case !labelForm.MatchString(name):
		return release.Invalid("label", "%q must be 1 to 63 letters, digits, dots, dashes, underscores or slashes", name)
	case name == "id" || name == "hostname" || name == "os" || name == "arch":
		return release.Invalid("label", "%q is the agent's own to say", name)
	case len(value) > 256 || strings.ContainsFunc(value, unicode.IsControl):
		return release.Invalid("label", "the value of %q is longer than 256 bytes or has a control character", name)
	}
	return nil
}

func withPort(server string) (string, error) {
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		host, port, err = net.SplitHostPort(net.JoinHostPort(server, DefaultPort))
	}
	if err != nil || host == "" || port == "" {
		return "", release.Invalid("server", "%q is not an address such as hub.example.com:%s", server, DefaultPort)
	}
	return net.JoinHostPort(host, port), nil
}
