// Package temporalserver runs a Temporal server and its web UI inside this process.
//
// It is the only package that links the Temporal server; everyone else meets Temporal through the SDK's client. The
// server listens on free loopback ports. All of them demand a client certificate of an authority that lives in the
// memory of this process, and the frontend wants a credential of the same kind on top, so that another user of the
// machine reaches a port and nothing behind it. The UI has no port at all: it is an http.Handler.
package temporalserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/headers"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/primitives"
	"go.temporal.io/server/temporal"
	"go.uber.org/dig"
	"go.uber.org/fx"
)

const (
	loopback    = "127.0.0.1"
	clusterName = "active"

	// historyShards is fixed when a database is made; changing it makes the database unusable.
	historyShards = 4

	// maxPollRPS lifts the limit of a shard's transfer queue. The default of 20 caps a workflow's sequential activities
	// at 20 a second.
	maxPollRPS = 1000
)

// Version is the version of the Temporal server that is built in.
const Version = headers.ServerVersion

// Config says where the server keeps its state and what it prepares.
type Config struct {
	// DataDir takes the SQLite file, the version record beside it and the log. Required.
	DataDir string
	// Postgres is a connection string, as a URL or as key=value pairs, of the database beside which the server makes two
	// of its own: <name>_temporal and <name>_temporal_visibility. Defaults to "", which means SQLite in DataDir.
	Postgres string
	// Namespace is created if it is missing. Defaults to "default".
	Namespace string
	// Retention is how long finished workflows are kept, in a namespace that is created. Defaults to 30 days.
	Retention time.Duration
	// SearchAttributes are registered with a namespace that is created. Defaults to none.
	SearchAttributes map[string]enumspb.IndexedValueType
	// UIPath is where UIHandler will be mounted, such as "/temporal". Defaults to "", the root.
	UIPath string
	// SecureCookies marks the UI's own cookie Secure, for a UI that is served over HTTPS. Defaults to false.
	SecureCookies bool
	// OnLost is told when the server must not go on, because another one may have taken over its PostgreSQL databases.
	// It must return soon; the owner should call Stop. Defaults to nothing but an error in the log.
	OnLost func(error)
	// Logger is told the little that an operator must know; the server's own log goes to DataDir/log/temporal.log.
	// Defaults to none.
	Logger *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	if c.DataDir == "" {
		return c, errors.New("temporalserver: DataDir is required")
	}
	if c.Namespace == "" {
		c.Namespace = client.DefaultNamespace
	}
	if c.Retention == 0 {
		c.Retention = 30 * 24 * time.Hour
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.OnLost == nil {
		c.OnLost = func(error) {}
	}
	return c, nil
}

// Server is a running Temporal server. Its methods may be called concurrently.
//
// About a hundred goroutines of the Temporal server outlive Stop: have one server a process.
type Server struct {
	cfg      Config
	identity *identity
	address  string
	ports    map[primitives.ServiceName]int
	temporal temporal.Server
	ui       *ui
	log      *logFile
	store    *persistence
	stop     sync.Once
	stopped  chan struct{} // closed when stopErr is final
	stopErr  error
}

// Start brings a server up and waits until its namespace answers. When it fails, nothing is left running.
func Start(ctx context.Context, cfg Config) (_ *Server, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, stopped: make(chan struct{})}
	defer func() {
		if err != nil {
			_ = s.Stop(context.WithoutCancel(ctx))
		}
	}()

	if s.log, err = openLog(filepath.Join(cfg.DataDir, "log", "temporal.log"), cfg.Logger); err != nil {
		return nil, err
	}
	if s.identity, err = newIdentity(); err != nil {
		return nil, err
	}
	if cfg.Postgres == "" {
		s.store, err = openSQLite(cfg, s.log.logger)
	} else {
		s.store, err = openPostgres(ctx, cfg, s.log.logger)
	}
	if err != nil {
		return nil, err
	}
	if err := s.createNamespace(); err != nil {
		return nil, err
	}
	if err := s.run(); err != nil {
		return nil, err
	}
	if err := s.waitReady(ctx); err != nil {
		return nil, err
	}
	if s.ui, err = newUI(s); err != nil {
		return nil, err
	}
	return s, nil
}

// run starts the four services.
func (s *Server) run() error {
	ports, err := reservePorts(primitives.FrontendService, primitives.HistoryService, primitives.MatchingService, primitives.WorkerService)
	if err != nil {
		return err
	}
	s.ports = ports
	s.address = hostPort(ports[primitives.FrontendService])

	// As temporal.NewServer, but without the noise of fx, which goes to the terminal while Temporal's logger does not exist.
	srv, err := temporal.NewServerFx(fx.Options(temporal.TopLevelModule, fx.NopLogger),
		temporal.WithConfig(s.serverConfig()),
		temporal.ForServices(temporal.DefaultServices),
		temporal.WithStaticHosts(hosts(ports)),
		temporal.WithLogger(s.log.logger),
		temporal.WithTLSConfigFactory(s.identity.provider()),
		temporal.WithClaimMapper(func(*config.Config) authorization.ClaimMapper { return s.identity }),
		temporal.WithAuthorizer(authorization.NewDefaultAuthorizer()),
		temporal.WithDynamicConfigClient(dynamicconfig.StaticClient{
			dynamicconfig.MakeKey("history.transferProcessorMaxPollRPS"): maxPollRPS,
			dynamicconfig.EnableServerVersionCheck.Key():                 false, // it asks a server on the internet
		}),
	)
	if err != nil {
		return fmt.Errorf("prepare the Temporal server: %w", dig.RootCause(err))
	}
	s.temporal = srv
	if err := srv.Start(); err != nil {
		return fmt.Errorf("start the Temporal server: %w", err)
	}
	return nil
}

func (s *Server) serverConfig() *config.Config {
	var c config.Config
	c.Global.Membership.MaxJoinDuration = 30 * time.Second
	c.Global.Membership.BroadcastAddress = loopback
	c.Persistence.NumHistoryShards = historyShards
	c.Persistence.DefaultStore, c.Persistence.VisibilityStore = "default", "visibility"
	c.Persistence.DataStores = map[string]config.DataStore{
		"default":    {SQL: s.store.main},
		"visibility": {SQL: s.store.visibility},
	}
	c.ClusterMetadata = &cluster.Config{
		FailoverVersionIncrement: 10,
		MasterClusterName:        clusterName,
		CurrentClusterName:       clusterName,
		ClusterInformation: map[string]cluster.ClusterInformation{
			clusterName: {Enabled: true, InitialFailoverVersion: 1, RPCAddress: s.address},
		},
	}
	c.DCRedirectionPolicy.Policy = "noop"
	c.Archival.History.State, c.Archival.Visibility.State = "disabled", "disabled"
	c.NamespaceDefaults.Archival.History.State, c.NamespaceDefaults.Archival.Visibility.State = "disabled", "disabled"
	c.PublicClient.HostPort = s.address
	c.Services = map[string]config.Service{}
	for name, port := range s.ports {
		c.Services[string(name)] = config.Service{RPC: config.RPC{GRPCPort: port, BindOnIP: loopback}}
	}
	return &c
}

// waitReady waits until the frontend serves the namespace.
func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("the Temporal server did not answer within a minute"))
	defer cancel()
	c, err := client.DialContext(ctx, s.ClientOptions())
	if err != nil {
		return fmt.Errorf("connect to the Temporal server: %w", err)
	}
	defer c.Close()
	for {
		_, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: s.cfg.Namespace})
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for namespace %q (%w): %w", s.cfg.Namespace, context.Cause(ctx), err)
		case <-time.After(50 * time.Millisecond): // the frontend has no signal to wait for
		}
	}
}

// ClientOptions are what an SDK client needs to reach the server: address, namespace, certificate and credential. The
// caller may add to them.
func (s *Server) ClientOptions() client.Options {
	return client.Options{
		HostPort:          s.address,
		Namespace:         s.cfg.Namespace,
		Credentials:       client.NewAPIKeyStaticCredentials(s.identity.credential),
		ConnectionOptions: client.ConnectionOptions{TLS: s.identity.clientTLS()},
		Logger:            sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)),
	}
}

// UIHandler serves Temporal's web UI for requests below Config.UIPath (which must not be stripped). Whoever reaches it
// may do everything: the caller must have asked for a login. It answers 503 once the server is stopped.
func (s *Server) UIHandler() http.Handler { return s.ui }

// Stop ends the server and waits for it as long as the context allows. It may be called again.
func (s *Server) Stop(ctx context.Context) error {
	s.stop.Do(func() {
		go func() { // ends by itself; Temporal's own Stop takes no context
			defer close(s.stopped)
			s.stopErr = s.shutdown()
		}()
	})
	select {
	case <-s.stopped:
		return s.stopErr
	case <-ctx.Done():
		return fmt.Errorf("stop the Temporal server: %w", context.Cause(ctx))
	}
}

func (s *Server) shutdown() error {
	var err error
	if s.ui != nil {
		s.ui.close()
	}
	if s.temporal != nil {
		err = s.temporal.Stop()
	}
	if s.store != nil {
		s.store.close()
	}
	if s.log != nil {
		s.log.close()
	}
	return err
}

// reservePorts finds free loopback ports, all different.
func reservePorts(names ...primitives.ServiceName) (map[primitives.ServiceName]int, error) {
	ports := map[primitives.ServiceName]int{}
	for _, name := range names {
		l, err := net.Listen("tcp", net.JoinHostPort(loopback, "0"))
		if err != nil {
			return nil, fmt.Errorf("find a free loopback port for Temporal: %w", err)
		}
		defer func() { _ = l.Close() }() // only now, so that no port is given twice
		ports[name] = l.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

func hosts(ports map[primitives.ServiceName]int) map[primitives.ServiceName]static.Hosts {
	m := map[primitives.ServiceName]static.Hosts{}
	for name, port := range ports {
		m[name] = static.SingleLocalHost(hostPort(port))
	}
	return m
}

func hostPort(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }
