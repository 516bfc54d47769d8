package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pressly/goose/v3"
)

const (
	maxGroup     = 256              // pieces of work in one transaction
	groupTimeout = 30 * time.Second // of one transaction
)

// group lets small pieces of work that come together share a transaction, and so its fsync. It is for SQLite, whose
// transactions come one after the other; PostgreSQL shares the fsync of those that commit together by itself.
type group struct {
	mu     sync.Mutex
	queue  []*piece
	leader bool // someone runs a transaction
}

// piece is one caller's work.
type piece struct {
	fn   func(ctx context.Context, tx conn) error
	lead chan struct{} // closed when its caller has to run the next transaction
	done chan struct{} // closed when err says what came of it
	err  error
}

// writeShared is write for work that may share a transaction with that of others; an error undoes the own work alone. fn
// uses the context that it is given. A caller whose ctx ends while its work waits gives up; work that has begun is finished.
func (s *Store) writeShared(ctx context.Context, what string, fn func(ctx context.Context, tx conn) error) error {
	if s.dialect.goose == goose.DialectPostgres {
		return s.write(ctx, what, func(tx conn) error { return fn(ctx, tx) })
	}
	p := &piece{fn: fn, lead: make(chan struct{}), done: make(chan struct{})}
	if !s.group.add(p) {
		select {
		case <-p.done:
			return shared(what, p.err)
		case <-p.lead:
		case <-ctx.Done():
			if s.group.remove(p) {
				return fmt.Errorf("%s: %w", what, ctx.Err())
			}
			select {
			case <-p.done:
				return shared(what, p.err)
			case <-p.lead:
			}
		}
	}
	s.lead(ctx, s.group.take())
	s.group.pass()
	return shared(what, p.err)
}

func shared(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// add queues a piece, and says whether its caller leads at once.
func (g *group) add(p *piece) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.queue = append(g.queue, p)
	if g.leader {
		return false
	}
	g.leader = true
	return true
}

// remove takes a piece back, unless it is the next to lead or in a transaction already.
func (g *group) remove(p *piece) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-p.lead:
		return false
	default:
	}
	for i, other := range g.queue {
		if other == p {
			g.queue = append(g.queue[:i:i], g.queue[i+1:]...)
			return true
		}
	}
	return false
}

func (g *group) take() []*piece {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(g.queue), maxGroup)
	pieces := g.queue[:n:n]
	g.queue = g.queue[n:]
	return pieces
}

// pass lets the caller of the next piece lead.
func (g *group) pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.queue) == 0 {
		g.queue, g.leader = nil, false
		return
	}
	close(g.queue[0].lead)
}

// lead runs pieces in a transaction, each under a savepoint of its own.
func (s *Store) lead(ctx context.Context, pieces []*piece) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), groupTimeout)
	defer cancel()
	err := s.write(ctx, "share a transaction", func(tx conn) error {
		for _, p := range pieces {
			if _, err := tx.exec(ctx, "SAVEPOINT piece"); err != nil {
				return err
			}
			if p.err = p.fn(ctx, tx); p.err != nil {
				if _, err := tx.exec(ctx, "ROLLBACK TO piece"); err != nil {
					return errors.Join(p.err, err)
				}
			}
		}
		return nil // the commit releases the savepoints, which lie in one another
	})
	for _, p := range pieces {
		if err != nil && p.err == nil {
			p.err = err
		}
		close(p.done)
	}
}
