// Package tserver runs a Temporal server inside this process.
package temporalserver

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	uiserver "github.com/temporalio/ui-server/v2/server"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	uiopts "github.com/temporalio/ui-server/v2/server/server_options"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	tlog "go.temporal.io/server/common/log"
	"go.temporal.io/server/common/log/tag"
	"go.temporal.io/server/common/membership/static"
	pgplugin "go.temporal.io/server/common/persistence/sql/sqlplugin/postgresql"
	sqliteplugin "go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	"go.temporal.io/server/common/primitives"
	sqliteschema "go.temporal.io/server/schema/sqlite"
	"go.temporal.io/server/temporal"
	"go.temporal.io/server/tools/common/schema"
	toolsql "go.temporal.io/server/tools/sql"
)

type Options struct {
	Store      string // sqlite, memory, postgres
	File       string
	Pragmas    map[string]string
	MaxConns   int
	PGAddr     string
	PGUser     string
	PGPassword string
	PGMainDB   string
	PGVisDB    string
	Shards     int32
	Port       int // 0: any
	UIPort     int // 0: no UI
	PublicPath string
	Namespace  string
	ClusterID  string
	SAs        map[string]enumspb.IndexedValueType
	Dynamic    map[string]any
	LogLevel   slog.Level
	Logger     *slog.Logger
}

type Server struct {
	HostPort string
	Ports    map[string]int
	srv      temporal.Server
	ui       *uiserver.Server
	Timing   map[string]time.Duration
}

func freePort() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

type slogger struct{ l *slog.Logger }

func (s slogger) log(lv slog.Level, msg string, tags []tag.Tag) {
	if !s.l.Enabled(context.Background(), lv) {
		return
	}
	as := make([]slog.Attr, len(tags))
	for i, t := range tags {
		as[i] = slog.Any(t.Key(), t.Value())
	}
	s.l.LogAttrs(context.Background(), lv, msg, as...)
}
func (s slogger) Debug(m string, t ...tag.Tag)  { s.log(slog.LevelDebug, m, t) }
func (s slogger) Info(m string, t ...tag.Tag)   { s.log(slog.LevelInfo, m, t) }
func (s slogger) Warn(m string, t ...tag.Tag)   { s.log(slog.LevelWarn, m, t) }
func (s slogger) Error(m string, t ...tag.Tag)  { s.log(slog.LevelError, m, t) }
func (s slogger) DPanic(m string, t ...tag.Tag) { s.log(slog.LevelError, m, t) }
func (s slogger) Panic(m string, t ...tag.Tag)  { s.log(slog.LevelError, m, t); panic(m) }
func (s slogger) Fatal(m string, t ...tag.Tag)  { s.log(slog.LevelError, m, t); os.Exit(1) }
func (s slogger) SLog() *slog.Logger            { return s.l }

var _ tlog.Logger = slogger{}

func pgSQL(o Options, db string) *config.SQL {
	n := o.MaxConns
	if n == 0 {
		n = 20
	}
	return &config.SQL{PluginName: pgplugin.PluginNamePGX, ConnectAddr: o.PGAddr, ConnectProtocol: "tcp",
		User: o.PGUser, Password: o.PGPassword, DatabaseName: db, MaxConns: n, MaxIdleConns: n, MaxConnLifetime: time.Hour}
}

// pgSchema creates the database when missing, then sets up or updates its schema from the embedded files.
func pgSchema(o Options, db, schemaName string, lg tlog.Logger) error {
	// NewConnection does not fail for a missing database, and CreateDatabase fails for one that is there: so look.
	pc, err := pgx.Connect(context.Background(), fmt.Sprintf("postgres://%s:%s@%s/postgres", o.PGUser, o.PGPassword, o.PGAddr))
	if err != nil {
		return err
	}
	var there bool
	err = pc.QueryRow(context.Background(), "select exists(select from pg_database where datname=$1)", db).Scan(&there)
	pc.Close(context.Background())
	if err != nil {
		return err
	}
	if !there {
		if err := toolsql.DoCreateDatabase(pgSQL(o, db), "postgres", lg); err != nil {
			return fmt.Errorf("create database %s: %w", db, err)
		}
	}
	c, err := toolsql.NewConnection(pgSQL(o, db), lg)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.ReadSchemaVersion(); err != nil {
		if err := schema.NewSetupSchemaTask(c, &schema.SetupConfig{InitialVersion: "0.0"}, lg).Run(); err != nil {
			return fmt.Errorf("setup schema: %w", err)
		}
	}
	return schema.NewUpdateSchemaTask(c, &schema.UpdateConfig{SchemaName: schemaName}, lg).Run()
}

func Start(o Options) (*Server, error) {
	t0 := time.Now()
	timing := map[string]time.Duration{}
	lg := slogger{o.Logger}
	host := "127.0.0.1"
	port := o.Port
	if port == 0 {
		port = freePort()
	}
	ports := map[string]int{"frontend": port, "history": freePort(), "matching": freePort(), "worker": freePort()}
	hp := fmt.Sprintf("%s:%d", host, port)

	var c config.Config
	c.Global.Membership.MaxJoinDuration = 30 * time.Second
	c.Global.Membership.BroadcastAddress = host
	c.Persistence.NumHistoryShards = o.Shards
	c.Persistence.DefaultStore = "default"
	c.Persistence.VisibilityStore = "visibility"
	var main, vis *config.SQL
	switch o.Store {
	case "sqlite", "memory":
		main = &config.SQL{PluginName: sqliteplugin.PluginName, MaxConns: o.MaxConns, MaxIdleConns: o.MaxConns}
		if o.Store == "memory" {
			main.DatabaseName = strconv.Itoa(os.Getpid())
			main.ConnectAttributes = map[string]string{"mode": "memory", "cache": "shared"}
		} else {
			main.DatabaseName = o.File
			main.ConnectAttributes = map[string]string{"mode": "rwc"}
		}
		for k, v := range o.Pragmas {
			main.ConnectAttributes[k] = v
		}
		if o.Store == "sqlite" {
			if _, err := os.Stat(o.File); os.IsNotExist(err) {
				if err := os.MkdirAll(filepath.Dir(o.File), 0o700); err != nil {
					return nil, err
				}
				if err := sqliteschema.SetupSchema(main); err != nil {
					return nil, err
				}
			}
		}
		vis = main
	case "postgres":
		if err := pgSchema(o, o.PGMainDB, "postgresql/v12/temporal", lg); err != nil {
			return nil, err
		}
		if err := pgSchema(o, o.PGVisDB, "postgresql/v12/visibility", lg); err != nil {
			return nil, err
		}
		main, vis = pgSQL(o, o.PGMainDB), pgSQL(o, o.PGVisDB)
	}
	timing["schema"] = time.Since(t0)
	c.Persistence.DataStores = map[string]config.DataStore{"default": {SQL: main}, "visibility": {SQL: vis}}
	nc, err := sqliteschema.NewNamespaceConfig("active", o.Namespace, false, o.SAs)
	if err != nil {
		return nil, err
	}
	if err := sqliteschema.CreateNamespaces(main, nc); err != nil {
		return nil, fmt.Errorf("create namespace: %w", err)
	}
	timing["namespace"] = time.Since(t0)
	c.ClusterMetadata = &cluster.Config{
		FailoverVersionIncrement: 10, MasterClusterName: "active", CurrentClusterName: "active",
		ClusterInformation: map[string]cluster.ClusterInformation{"active": {
			Enabled: true, InitialFailoverVersion: 1, RPCAddress: hp, ClusterID: o.ClusterID}},
	}
	c.DCRedirectionPolicy.Policy = "noop"
	c.Archival.History.State, c.Archival.Visibility.State = "disabled", "disabled"
	c.NamespaceDefaults.Archival.History.State, c.NamespaceDefaults.Archival.Visibility.State = "disabled", "disabled"
	c.PublicClient.HostPort = hp
	c.Services = map[string]config.Service{}
	hosts := map[primitives.ServiceName]static.Hosts{}
	for n, p := range ports {
		c.Services[n] = config.Service{RPC: config.RPC{GRPCPort: p, BindOnIP: host}}
		hosts[primitives.ServiceName(n)] = static.SingleLocalHost(fmt.Sprintf("%s:%d", host, p))
	}
	dyn := dynamicconfig.StaticClient{}
	for k, v := range o.Dynamic {
		dyn[dynamicconfig.MakeKey(k)] = v
	}
	auth, err := authorization.GetAuthorizerFromConfig(&c.Global.Authorization)
	if err != nil {
		return nil, err
	}
	srv, err := temporal.NewServer(
		temporal.WithConfig(&c),
		temporal.ForServices(temporal.DefaultServices),
		temporal.WithStaticHosts(hosts),
		temporal.WithLogger(lg),
		temporal.WithAuthorizer(auth),
		temporal.WithDynamicConfigClient(dyn),
	)
	if err != nil {
		return nil, err
	}
	timing["new"] = time.Since(t0)
	if err := srv.Start(); err != nil {
		return nil, err
	}
	timing["started"] = time.Since(t0)
	s := &Server{HostPort: hp, Ports: ports, srv: srv, Timing: timing}
	if o.UIPort != 0 {
		s.ui = uiserver.NewServer(uiopts.WithConfigProvider(&uiconfig.Config{
			Host: host, Port: o.UIPort, TemporalGRPCAddress: hp, EnableUI: true, PublicPath: o.PublicPath,
			CORS: uiconfig.CORS{CookieInsecure: true}, HideLogs: true, DisableNewsFetch: true, DefaultNamespace: o.Namespace,
		}))
		go s.ui.Start()
		timing["ui"] = time.Since(t0)
	}
	return s, nil
}

func (s *Server) Stop() {
	if s.ui != nil {
		s.ui.Stop()
	}
	s.srv.Stop()
}
