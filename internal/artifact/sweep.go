package artifact

import (
	"context"
	"time"
)

// Run removes what is not kept any longer, at once and then every Interval, until ctx ends.
func (s *Store) Run(ctx context.Context) {
	ticker := time.NewTicker(s.config.Interval)
	defer ticker.Stop()
	for {
		s.Sweep(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Sweep removes artifacts that no version uses, Retention after they were used last, contents that the index does not have, and
// what uploads that were cut off have left. What fails is logged, and done in the next round.
func (s *Store) Sweep(ctx context.Context) {
	failed := func(what string, err error) {
		if err != nil && ctx.Err() == nil {
			s.config.Logger.ErrorContext(ctx, "not removed; trying again in the next round", "what", what, "error", err)
		}
	}
	failed("uploads", s.sweepTemp())
	if s.config.Retention > 0 {
		failed("unused artifacts", s.expire(ctx))
	}
	failed("artifacts without an entry", s.sweepOrphans(ctx))
}

func (s *Store) expire(ctx context.Context) error {
	since := s.config.Now().Add(-s.config.Retention)
	unused, err := s.config.Index.UnusedArtifacts(ctx, since)
	if err != nil {
		return err
	}
	for _, sum := range unused {
		if err := s.expireOne(ctx, sum, since); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) expireOne(ctx context.Context, sum string, since time.Time) error {
	unlock := s.lock(sum)
	defer unlock()
	deleted, err := s.config.Index.DeleteUnusedArtifact(ctx, sum, since)
	if err != nil || !deleted {
		return err
	}
	s.config.Logger.InfoContext(ctx, "unused artifact removed", "sha256", sum)
	return s.remove(ctx, sum)
}

func (s *Store) sweepOrphans(ctx context.Context) error {
	before := s.config.Now().Add(-orphanAge)
	var batch []string
	flush := func() error {
		known, err := s.config.Index.KnownArtifacts(ctx, batch)
		if err != nil {
			return err
		}
		for _, sum := range batch {
			if known[sum] {
				continue
			}
			if err := s.removeOrphan(ctx, sum); err != nil {
				return err
			}
		}
		batch = batch[:0]
		return nil
	}
	err := s.backend.each(ctx, func(sum string, changed time.Time) error {
		if changed.After(before) {
			return nil
		}
		if batch = append(batch, sum); len(batch) < 500 {
			return nil
		}
		return flush()
	})
	if err != nil || len(batch) == 0 {
		return err
	}
	return flush()
}

func (s *Store) removeOrphan(ctx context.Context, sum string) error {
	unlock := s.lock(sum)
	defer unlock()
	known, err := s.config.Index.KnownArtifacts(ctx, []string{sum}) // it may have come meanwhile
	if err != nil || known[sum] {
		return err
	}
	s.config.Logger.InfoContext(ctx, "artifact without an entry removed", "sha256", sum)
	return s.remove(ctx, sum)
}
