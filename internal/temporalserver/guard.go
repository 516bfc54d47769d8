package temporalserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
)

// lockKey names the advisory lock that the one embedded server of a database holds. Any constant would do; it must never
// change.
const lockKey = 0x71666c_74656d70 // "qfltemp"

const (
	guardInterval = 2 * time.Second
	guardTimeout  = 10 * time.Second
	lockAttempts  = 5
	lockPause     = 200 * time.Millisecond
)

var errLockHeld = errors.New("another quic-server runs its embedded Temporal on this database: " +
	"only one may; set temporal.address to a Temporal cluster that they share")

// guard holds the lock on a connection of its own, and takes it again when that connection broke.
type guard struct {
	cfg    *pgx.ConnConfig
	conn   *pgx.Conn
	onLost func(error)
	logger *slog.Logger
	cancel context.CancelFunc
	done   chan struct{}
}

func newGuard(ctx context.Context, cfg *pgx.ConnConfig, c Config) (*guard, error) {
	g := &guard{cfg: cfg, onLost: c.OnLost, logger: c.Logger, done: make(chan struct{})}
	if err := g.take(ctx); err != nil {
		return nil, err
	}
	watch, cancel := context.WithCancel(context.WithoutCancel(ctx))
	g.cancel = cancel
	go g.watch(watch)
	return g, nil
}

// take connects and takes the lock. A holder that has just died keeps it until PostgreSQL notices, so it insists a
// little.
func (g *guard) take(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, guardTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, g.cfg)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	for attempt := range lockAttempts {
		locked := false
		err = conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", int64(lockKey)).Scan(&locked)
		if err == nil && locked {
			g.conn = conn
			return nil
		}
		if err != nil || attempt == lockAttempts-1 {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(lockPause):
		}
	}
	_ = conn.Close(context.WithoutCancel(ctx))
	if err != nil {
		return fmt.Errorf("take the lock of the embedded Temporal: %w", err)
	}
	return errLockHeld
}

// watch notices a lost connection, with which the lock is lost too.
func (g *guard) watch(ctx context.Context) {
	defer close(g.done)
	defer func() { _ = g.conn.Close(context.WithoutCancel(ctx)) }()
	tick := time.NewTicker(guardInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if g.ping(ctx) == nil {
			continue
		}
		_ = g.conn.Close(ctx)
		switch err := g.take(ctx); {
		case err == nil:
			g.logger.Info("took the lock of the embedded Temporal again")
		case errors.Is(err, errLockHeld):
			g.logger.Error("lost the lock of the embedded Temporal", "error", err)
			g.onLost(err)
			return
		case ctx.Err() == nil:
			g.logger.Warn("PostgreSQL is away", "error", err) // Temporal is stuck as well: nothing to protect until it is back
		}
	}
}

func (g *guard) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, guardTimeout)
	defer cancel()
	return g.conn.Ping(ctx)
}

func (g *guard) close() {
	g.cancel()
	<-g.done
}
