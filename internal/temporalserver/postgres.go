package temporalserver

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/iancoleman/strcase"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/jmoiron/sqlx"
	"go.temporal.io/server/common/config"
	tlog "go.temporal.io/server/common/log"
	pgplugin "go.temporal.io/server/common/persistence/sql/sqlplugin/postgresql"
	"go.temporal.io/server/tools/common/schema"
	toolsql "go.temporal.io/server/tools/sql"
)

const (
	// postgresConns is the limit of each of the services' pools; there are up to eight, mostly idle.
	postgresConns = 10

	mainSchema       = "postgresql/v12/temporal"
	visibilitySchema = "postgresql/v12/visibility"
)

// openPostgres takes the lock, then creates or updates the two databases.
func openPostgres(ctx context.Context, cfg Config, log tlog.Logger) (_ *persistence, err error) {
	base, err := pgx.ParseConfig(cfg.Postgres)
	if err != nil {
		return nil, fmt.Errorf("read the connection string of PostgreSQL: %w", err)
	}
	guard, err := newGuard(ctx, base, cfg)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			guard.close()
		}
	}()

	main := postgresConfig(base, base.Database+"_temporal")
	visibility := postgresConfig(base, base.Database+"_temporal_visibility")
	if err := prepareDatabase(ctx, base, main, mainSchema, log); err != nil {
		return nil, err
	}
	if err := prepareDatabase(ctx, base, visibility, visibilitySchema, log); err != nil {
		return nil, err
	}
	return &persistence{main: main, visibility: visibility, close: guard.close}, nil
}

// postgresConfig connects to another database of the same server, with everything else as the connection string says.
func postgresConfig(base *pgx.ConnConfig, database string) *config.SQL {
	return &config.SQL{
		PluginName:      pgplugin.PluginNamePGX,
		DatabaseName:    database,
		ConnectAddr:     base.Host,
		ConnectProtocol: "tcp",
		Connect:         func(*config.SQL) (*sqlx.DB, error) { return connect(base, database) },
	}
}

func connect(base *pgx.ConnConfig, database string) (*sqlx.DB, error) {
	cc := base.Copy()
	cc.Database = database
	db := sqlx.NewDb(sql.OpenDB(stdlib.GetConnector(*cc, stdlib.OptionAfterConnect(durationAsInt8))), "pgx")
	db.SetMaxOpenConns(postgresConns)
	db.SetMaxIdleConns(postgresConns)
	db.SetConnMaxIdleTime(time.Minute)
	db.SetConnMaxLifetime(time.Hour)
	db.MapperFunc(strcase.ToSnake) // as Temporal names its columns
	if err := db.Ping(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// durationAsInt8 does what Temporal's own driver does: it stores durations as nanoseconds, and pgx would send intervals.
func durationAsInt8(_ context.Context, conn *pgx.Conn) error {
	conn.TypeMap().RegisterDefaultPgType(time.Duration(0), "int8")
	conn.TypeMap().RegisterDefaultPgType((*time.Duration)(nil), "int8")
	return nil
}

// prepareDatabase brings a database to the schema of this server. A new one gets its schema under another name first,
// so that a start that was interrupted leaves nothing half done behind.
func prepareDatabase(ctx context.Context, base *pgx.ConnConfig, c *config.SQL, schemaName string, log tlog.Logger) error {
	name := c.DatabaseName
	conn, err := pgx.ConnectConfig(ctx, base)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()

	exists := false
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&exists); err != nil {
		return fmt.Errorf("look for database %s: %w", name, err)
	}
	if exists {
		return migrate(c, schemaName, log)
	}

	// Only the connection goes to the other name: the schema's version is kept under the final one.
	unfinished := *c
	unfinished.Connect = func(*config.SQL) (*sqlx.DB, error) { return connect(base, name+"_new") }
	quoted := pgx.Identifier{name + "_new"}.Sanitize()
	if _, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+quoted); err != nil {
		return fmt.Errorf("drop what an earlier start left: %w", err)
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+quoted); err != nil {
		return fmt.Errorf("create database %s for the embedded Temporal (create it and its sibling yourself, grant CREATEDB, or set temporal.address): %w", name, err)
	}
	if err := migrate(&unfinished, schemaName, log); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "ALTER DATABASE "+quoted+" RENAME TO "+pgx.Identifier{name}.Sanitize()); err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	return nil
}

func migrate(c *config.SQL, schemaName string, log tlog.Logger) error {
	conn, err := toolsql.NewConnection(c, log)
	if err != nil {
		return fmt.Errorf("connect to database %s: %w", c.DatabaseName, err)
	}
	defer conn.Close()
	if _, err := conn.ReadSchemaVersion(); err != nil {
		if err := schema.NewSetupSchemaTask(conn, &schema.SetupConfig{InitialVersion: "0.0"}, log).Run(); err != nil {
			return fmt.Errorf("set up the schema of database %s: %w", c.DatabaseName, err)
		}
	}
	if err := schema.NewUpdateSchemaTask(conn, &schema.UpdateConfig{SchemaName: schemaName}, log).Run(); err != nil {
		return fmt.Errorf("update the schema of database %s: %w", c.DatabaseName, err)
	}
	return nil
}
