// Package app builds the server from its configuration, starts it and stops it.
package app

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/client"

	"github.com/quicflow/quicflow/activities"
	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/artifact"
	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/config"
	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/rollout"
	"github.com/quicflow/quicflow/internal/service"
	"github.com/quicflow/quicflow/internal/store"
	"github.com/quicflow/quicflow/internal/telemetry"
)

// stopTimeout bounds a graceful stop.
const stopTimeout = 15 * time.Second

// Config says what to run.
type Config struct {
	config.Config // validated, as config.Load gives it

	// Version is the program's. Defaults to "dev".
	Version string
	// Greeting is where the addresses, and at the first start the administrator's token, are shown. Defaults to nowhere.
	Greeting io.Writer
	// Logger defaults to slog.Default().
	Logger *slog.Logger
}

// App is a running server.
type App struct {
	cfg      Config
	logger   *slog.Logger
	services service.Group
	failed   chan error    // buffered; the first service that failed by itself
	sdkLevel slog.LevelVar // of what Temporal's SDK logs

	dir        *directory
	nodeID     string
	store      *store.Store
	artifacts  *artifact.Store
	bus        *bus.Bus
	registry   *prometheus.Registry // of what is in memory
	counted    *prometheus.Registry // of what asks the database
	sampler    *telemetry.Sampler
	hub        *hub.Hub
	joins      hubIdentity
	temporal   client.Client
	temporalUI http.Handler
	apiTLS     *tls.Config
	rollouts   *rollout.Rollouts
	jobs       *rollout.Jobs
	schedules  *rollout.Schedules
	results    activities.Results // what the hub stores, for the dispatches that wait for it

	searchAttributes bool
	endpoint         Endpoint
	metricsURL       string
}

// Run runs a server until ctx ends or a part of it fails, and then stops it, within a bounded time.
func Run(ctx context.Context, cfg Config) error {
	a, err := Start(ctx, cfg)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		a.logger.Info("stopping", "cause", context.Cause(ctx))
	case err = <-a.Failed():
		a.logger.Error("stopping because a part of the server failed", "error", err)
	}
	return errors.Join(err, a.Stop(context.WithoutCancel(ctx)))
}

// Start builds and starts everything. When it fails, nothing is left running.
func Start(ctx context.Context, cfg Config) (*App, error) {
	if cfg.Version == "" {
		cfg.Version = "dev"
	}
	if cfg.Greeting == nil {
		cfg.Greeting = io.Discard
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	a := &App{cfg: cfg, logger: cfg.Logger, failed: make(chan error, 1), services: service.Group{Logger: cfg.Logger}}
	a.sdkLevel.Set(slog.LevelWarn)
	if err := a.start(ctx); err != nil {
		return nil, errors.Join(err, a.Stop(context.WithoutCancel(ctx)))
	}
	return a, nil
}

// Failed gives the error of a part that failed by itself, if one does. The server should be stopped then.
func (a *App) Failed() <-chan error { return a.failed }

// Endpoint is where the server is reached.
func (a *App) Endpoint() Endpoint { return a.endpoint }

// Stop stops everything in the reverse order, within 15 s.
func (a *App) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, stopTimeout, fmt.Errorf("not stopped within %s", stopTimeout))
	defer cancel()
	a.sdkLevel.Set(slog.LevelError) // it warns of every poll that a stop ends
	return a.services.Stop(ctx)
}

func (a *App) fail(err error) {
	select {
	case a.failed <- err:
	default: // one is enough
	}
}

// start goes from the ground up. The API comes last, so that whoever reaches it finds everything behind it; its port is
// opened first, so that a port that is taken is told before anything else happens.
func (a *App) start(ctx context.Context) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(a.cfg.Server.GCPercent)
	}
	if err := a.openDirectory(ctx); err != nil {
		return err
	}
	apiListener, metricsListener, err := a.listen(ctx)
	if err != nil {
		return err
	}
	if err := a.openStore(ctx); err != nil {
		return err
	}
	if err := a.openArtifacts(ctx); err != nil {
		return err
	}
	token, err := ensureAdminToken(ctx, a.dir, a.store, a.nodeID)
	if err != nil {
		return err
	}
	a.bus = bus.New(bus.Config{})
	a.registry, a.counted = telemetry.NewRegistry(a.cfg.Version), prometheus.NewRegistry()
	if err := a.startHub(ctx); err != nil {
		return err
	}
	if err := a.startSampler(ctx); err != nil {
		return err
	}
	if err := a.startTemporal(ctx); err != nil {
		return err
	}
	if err := a.startRollouts(ctx); err != nil {
		return err
	}
	if err := a.startWorkers(ctx); err != nil {
		return err
	}
	if err := a.serve(ctx, apiListener, metricsListener); err != nil {
		return err
	}
	// Gone before the port is given back: whoever listens there later is not to be taken for this server.
	err = a.services.Start(ctx, service.Service{
		Name:  endpointFile,
		Start: func(context.Context) error { return a.endpoint.write(a.dir) },
		Stop:  func(context.Context) error { return removeEndpoint(a.dir) },
	})
	if err != nil {
		return err
	}
	a.greet(a.cfg.Greeting, token)
	a.logger.Info("ready", "api", a.endpoint.API, "quic", a.endpoint.QUIC, "data_dir", a.dir.path, "node_id", a.nodeID)
	return nil
}

func (a *App) openDirectory(ctx context.Context) error {
	path := a.cfg.Server.DataDir
	if path == "" {
		var err error
		if path, err = config.DataDir(); err != nil {
			return fmt.Errorf("find a data directory (choose one with --data-dir): %w", err)
		}
	}
	dir, err := openDirectory(path)
	if err != nil {
		return err
	}
	a.dir = dir
	// The lock is given back last.
	if err := a.services.Start(ctx, service.Service{Name: "data directory", Stop: func(context.Context) error { return dir.unlock() }}); err != nil {
		return err
	}
	if err := removeEndpoint(dir); err != nil { // of a server that was killed
		return err
	}
	a.nodeID, err = dir.nodeID()
	return err
}

func (a *App) openStore(ctx context.Context) error {
	d := a.cfg.Database
	cfg := store.Config{
		Driver:       store.SQLite,
		DSN:          a.dir.file("quicflow.db"),
		OfflineGrace: a.cfg.Session.OfflineGrace.Std(),
		MaxLogBytes:  int64(a.cfg.Logs.MaxBytes),
		Logger:       databaseLog(d.LogLevel, a.logger),
	}
	if d.Postgres() {
		cfg.Driver, cfg.DSN = store.Postgres, d.ConnString()
		cfg.MaxOpenConns, cfg.ConnMaxLifetime = d.MaxOpenConns, d.ConnMaxLifetime.Std()
		cfg.MaxIdleConns = cmp.Or(d.MaxIdleConns, -1) // 0 means none
	}
	var err error
	if cfg.SecretKey, err = a.secretsKey(); err != nil {
		return err
	}
	err = a.services.Start(ctx, service.Service{
		Name: "store",
		Start: func(ctx context.Context) (err error) {
			if a.store, err = store.Open(ctx, cfg); err != nil {
				return err
			}
			if n, err := a.store.UnreadableSecrets(ctx); err != nil || n > 0 {
				a.logger.Error("secret variables cannot be read with this server's key; steps that refer to them will fail", "secrets", n, "error", err)
			}
			return nil
		},
		Stop: func(context.Context) error { return a.store.Close() },
	})
	if err != nil {
		return err
	}
	sweeper := store.NewSweeper(store.SweeperConfig{
		Store: a.store, LogRetention: a.cfg.Logs.Retention.Std(), JobRetention: a.cfg.Batch.Retention.Std(), Logger: a.logger,
	})
	return a.services.Start(ctx, service.Loop("retention", sweeper.Run))
}

// secretsKey reads the key of secret variables; the one in the data directory is made at the first start.
func (a *App) secretsKey() ([]byte, error) {
	if file := a.cfg.Server.SecretsKeyFile; file != "" {
		return auth.LoadSecretsKey(file, false)
	}
	return auth.LoadSecretsKey(a.dir.file("secrets.key"), true)
}

func (a *App) startHub(ctx context.Context) error {
	ca, err := pki.LoadOrCreate(a.dir.path)
	if err != nil {
		return err
	}
	if a.joins, err = newHubIdentity(a.cfg.TLS, ca); err != nil {
		return err
	}
	metrics, err := hub.NewMetrics(a.registry)
	if err == nil {
		err = errors.Join(a.counted.Register(telemetry.NewRollouts(a.store, a.logger)), a.counted.Register(telemetry.NewJobs(a.store, a.logger)))
	}
	if err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	cfg := hub.Settings(a.cfg.Config)
	cfg.NodeID = a.nodeID
	cfg.CA, cfg.Certificate, cfg.ServerCAs = ca, a.joins.certificate, a.joins.authorities
	cfg.Registry, cfg.Sink, cfg.Enroller = noticedRegistry{a.store, a.bus}, a.store, a.store
	cfg.Artifacts = a.artifacts
	cfg.OnStored = func(taskID string) { a.bus.Notify(bus.Task(taskID)) }
	cfg.OnResults = a.results.Stored
	cfg.Metrics, cfg.Logger = metrics, a.logger
	a.hub, err = hub.New(cfg)
	if err != nil {
		return err
	}
	return a.services.Start(ctx, service.Service{
		Name: "hub",
		Start: func(ctx context.Context) error {
			err := a.hub.Start(ctx)
			if opErr := (*net.OpError)(nil); errors.As(err, &opErr) {
				return portError("server.addr", a.cfg.Server.Addr, err)
			}
			return err
		},
		Stop: a.hub.Stop,
	})
}

func (a *App) startRollouts(ctx context.Context) (err error) {
	cfg := rollout.Config{
		Client:           a.temporal,
		Store:            a.store,
		Namespace:        a.cfg.Temporal.Namespace,
		SearchAttributes: a.searchAttributes,
		Logger:           a.logger,
	}
	if a.rollouts, err = rollout.New(cfg); err != nil {
		return err
	}
	if a.jobs, err = rollout.NewJobs(cfg); err != nil {
		return err
	}
	if a.schedules, err = rollout.NewSchedules(cfg); err != nil {
		return err
	}
	if err := a.services.Start(ctx, service.Loop("reconciler of schedules", a.schedules.Reconcile)); err != nil {
		return err
	}
	if err := a.services.Start(ctx, service.Loop("reconciler", a.rollouts.Reconcile)); err != nil {
		return err
	}
	return a.services.Start(ctx, service.Loop("reconciler of jobs", a.jobs.Reconcile))
}

// jobLimits are the defaults and bounds of jobs.
func (a *App) jobLimits() job.Limits {
	b := a.cfg.Batch
	return job.Limits{MaxConcurrency: b.MaxConcurrency, TaskTimeout: release.Duration(b.TaskTimeout), JobTimeout: release.Duration(b.JobTimeout),
		RetryInterval: release.Duration(b.RetryInterval), Retries: b.MaxRetries}
}
