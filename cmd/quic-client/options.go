package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/agent/artifacts"
	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/container"
	"github.com/quicflow/quicflow/agent/executor/git"
	"github.com/quicflow/quicflow/agent/executor/kubernetes"
	"github.com/quicflow/quicflow/agent/executor/script"
	"github.com/quicflow/quicflow/agent/executor/wrapper"
	"github.com/quicflow/quicflow/agent/host"
	"github.com/quicflow/quicflow/internal/auth"
)

const (
	defaultServer      = "localhost:8474"
	defaultID          = "client-001"
	defaultJoinTimeout = 30 * time.Second
	defaultMaxSteps    = 16
	defaultMaxJournal  = 10_000
	defaultMaxLog      = 256 << 20
	defaultCache       = 10 << 30
	defaultLogLevel    = "info"
	tokenVariable      = "QUIC_JOIN_TOKEN"
)

// options are the flags.
type options struct {
	servers       []string
	serverGiven   bool
	id            string
	insecure      bool
	labels        map[string]string
	token         string
	tokenFile     string
	dataDir       string
	serverDataDir string
	retryLimit    int
	maxSteps      int
	maxJournal    int
	maxLog        int64
	artifactCache int64
	joinTimeout   time.Duration
	joined        func() // to be called when there is an identity
	logLevel      string
	logger        *slog.Logger
}

func (o *options) register(flags *pflag.FlagSet) {
	flags.StringSliceVarP(&o.servers, "server", "s", []string{defaultServer}, "address of a server, host:port; may be repeated")
	flags.StringVarP(&o.id, "id", "i", defaultID, "identity of this host")
	flags.BoolVarP(&o.insecure, "insecure", "k", false, "do not check the server's certificate; for tests only")
	flags.StringToStringVar(&o.labels, "label", nil, "label of this host, name=value; may be repeated")
	flags.StringVar(&o.token, "token", "", "join token, needed the first time; also $"+tokenVariable)
	flags.StringVar(&o.tokenFile, "token-file", "", "file that holds the join token")
	flags.StringVar(&o.dataDir, "data-dir", "", "directory for all state (default /var/lib/quicflow/agent/ID for root, else $XDG_STATE_HOME/quicflow/agent/ID)")
	flags.StringVar(&o.serverDataDir, "server-data-dir", "", "data directory of a local server, to join without a token (default: the local server's default)")
	flags.IntVar(&o.retryLimit, "retry-limit", 0, "exit after so many failed attempts to connect in a row; 0 is no limit")
	flags.IntVar(&o.maxSteps, "max-steps", defaultMaxSteps, "steps that may run at the same time")
	flags.IntVar(&o.maxJournal, "max-journal", defaultMaxJournal, "steps whose result or output the server has not confirmed; more are refused as journal_full")
	flags.Int64Var(&o.maxLog, "max-log", defaultMaxLog, "bytes of one step's output that are kept; the log says what is cut, and the result has the end")
	flags.Int64Var(&o.artifactCache, "artifact-cache", defaultCache, "bytes that the artifacts kept on this host may take; those in use stay in any case")
	flags.StringVar(&o.logLevel, "log-level", defaultLogLevel, "debug, info, warn or error")
}

func (o *options) joinToken() (string, error) {
	if o.token != "" {
		return o.token, nil
	}
	if o.tokenFile != "" {
		text, err := os.ReadFile(o.tokenFile)
		if err != nil {
			return "", fmt.Errorf("read --token-file: %w", err)
		}
		return strings.TrimSpace(string(text)), nil
	}
	return os.Getenv(tokenVariable), nil
}

// directory is the agent's data directory.
func (o *options) directory() (string, error) {
	dir := o.dataDir
	if dir == "" {
		state, err := auth.StateDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(state, "agent", o.id)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("--data-dir: %w", err)
	}
	return dir, nil
}

// check names the flag that is wrong, where the agent could only say that something is.
func (o *options) check() error {
	for _, flag := range []struct {
		name  string
		value int64
	}{
		{"retry-limit", int64(o.retryLimit)}, {"max-steps", int64(o.maxSteps)}, {"max-journal", int64(o.maxJournal)},
		{"artifact-cache", o.artifactCache},
	} {
		if flag.value < 0 {
			return fmt.Errorf("--%s: %d is less than 0", flag.name, flag.value)
		}
	}
	return nil
}

// config is what the flags say.
func (o *options) config() (agent.Config, error) {
	if err := o.check(); err != nil {
		return agent.Config{}, err
	}
	cfg := agent.Config{
		Servers: o.servers, ClientID: o.id, Labels: o.labels, Insecure: o.insecure,
		MaxRetries: o.retryLimit, MaxSteps: o.maxSteps, MaxJournal: o.maxJournal, MaxLog: o.maxLog, Version: version, Logger: o.logger,
		Commands: host.Commands(), Facts: host.Facts,
	}
	var err error
	if cfg.Token, err = o.joinToken(); err != nil {
		return cfg, err
	}
	if cfg.DataDir, err = o.directory(); err != nil {
		return cfg, err
	}
	cfg.Artifacts, err = artifacts.New(artifacts.Config{Dir: filepath.Join(cfg.DataDir, "artifacts"), MaxBytes: o.artifactCache, Logger: o.logger})
	if err != nil {
		return cfg, err
	}
	cfg.Executor, err = o.executors(cfg)
	return cfg, err
}

// workers are those of the deployment types that this program has. Making them does nothing.
func workers() []executor.Worker {
	return []executor.Worker{script.New(), container.New(container.Config{}), git.New(git.Config{}), kubernetes.New()}
}

// executors carry out the steps of all types.
func (o *options) executors(cfg agent.Config) (*executor.Set, error) {
	var all []executor.Executor
	for _, w := range workers() {
		x, err := wrapper.New(wrapper.Config{Worker: w, Fetcher: cfg.Artifacts, Logger: o.logger})
		if err != nil {
			return nil, err
		}
		all = append(all, x)
	}
	return executor.NewSet(executor.Host{ClientID: o.id, DataDir: cfg.DataDir, Labels: o.labels}, all...)
}

// agent builds the agent. Without an identity and a token it gets one from a local server.
func (o *options) agent(ctx context.Context, cfg agent.Config) (*agent.Agent, error) {
	a, err := agent.New(cfg)
	if err != nil {
		return nil, err
	}
	switch {
	case cfg.Token != "":
	case a.Joined():
		cfg.Servers = o.remembered(cfg.DataDir)
	default:
		local, err := o.localServer()
		if err != nil {
			return nil, err
		}
		if cfg.Token, err = mint(ctx, local, o.id); err != nil {
			return nil, fmt.Errorf("join through the local server at %s: %w", local.API, err)
		}
		if !o.serverGiven {
			cfg.Servers = []string{local.QUIC}
		}
	}
	o.joined = func() { o.remember(cfg.DataDir, cfg.Servers) }
	return agent.New(cfg)
}

const serversFile = "servers" // in the data directory

// remember keeps the addresses that an agent has joined or was started with, one a line, for the times it is started without.
func (o *options) remember(dataDir string, servers []string) {
	file, text := filepath.Join(dataDir, serversFile), strings.Join(servers, "\n")+"\n"
	if old, err := os.ReadFile(file); err == nil && string(old) == text {
		return
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		o.logger.Warn("servers' addresses not kept: give --server at the next start, too", "error", err)
	}
}

// remembered gives the addresses of the command line, or else those that were kept.
func (o *options) remembered(dataDir string) []string {
	text, err := os.ReadFile(filepath.Join(dataDir, serversFile))
	if servers := strings.Fields(string(text)); err == nil && !o.serverGiven && len(servers) > 0 {
		return servers
	}
	return o.servers
}

func (o *options) run(ctx context.Context) error {
	cfg, err := o.config()
	if err != nil {
		return err
	}
	defer cfg.Artifacts.Close()
	ctx, over := onTrial(ctx, &cfg)
	defer over()
	a, err := o.agent(ctx, cfg)
	if err != nil {
		return err
	}
	if o.insecure {
		o.logger.Warn("the server's certificate is not checked (--insecure): anyone on the way can command this host")
	}
	if !a.Joined() {
		if err := a.Join(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
	o.joined()
	return o.serve(ctx, a, cfg.DataDir)
}

// facts prints what the agent tells a server of its host.
func (o *options) facts(ctx context.Context, out io.Writer) error {
	cfg, err := o.config()
	if err != nil {
		return err
	}
	a, err := agent.New(cfg)
	if err != nil {
		return err
	}
	text, err := a.CollectFacts(ctx)
	if err != nil {
		return err
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, text, "", "  "); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, pretty.String())
	return err
}

func (o *options) join(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, o.joinTimeout, errors.New("no server answered in time"))
	defer cancel()
	cfg, err := o.config()
	if err != nil {
		return err
	}
	a, err := o.agent(ctx, cfg)
	if err != nil {
		return err
	}
	if token, _ := o.joinToken(); token == "" && a.Joined() {
		o.logger.Info("already joined", "client_id", o.id)
		return nil
	}
	if err := a.Join(ctx); err != nil {
		return err
	}
	o.joined()
	return nil
}
