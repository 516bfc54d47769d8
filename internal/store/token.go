package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/quicflow/quicflow/internal/release"
)

// EnsureAdminToken stores an administrator's token if the store has no token at all, and says whether it did. Of
// several servers that start on one database, one does.
func (s *Store) EnsureAdminToken(ctx context.Context, name, hash string) (created bool, err error) {
	err = s.write(ctx, "store the first token", func(tx conn) error {
		// The constant id is what several servers would collide on.
		n, err := tx.exec(ctx, `INSERT INTO api_tokens (id, name, hash, created_at)
			SELECT 'first', CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS BIGINT) WHERE NOT EXISTS (SELECT 1 FROM api_tokens)
			ON CONFLICT (id) DO NOTHING`, name, hash, micros(s.now()))
		created = n == 1
		return err
	})
	return created, err
}

// PutToken stores a token under an id, in place of the one that had it.
func (s *Store) PutToken(ctx context.Context, id, name, hash string) error {
	return s.write(ctx, "store token", func(tx conn) error {
		_, err := tx.exec(ctx, `INSERT INTO api_tokens (id, name, hash, created_at) VALUES (?, ?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET name = excluded.name, hash = excluded.hash, created_at = excluded.created_at`,
			id, name, hash, micros(s.now()))
		if isDuplicate(err) {
			return release.Conflict("another token has the same secret")
		}
		return err
	})
}

// TokenByHash gives the name of whoever holds the token, or release.ErrNotFound.
func (s *Store) TokenByHash(ctx context.Context, hash string) (name string, err error) {
	err = s.read().get(ctx, &name, `SELECT name FROM api_tokens WHERE hash = ?`, hash)
	if errors.Is(err, sql.ErrNoRows) {
		return "", &release.Error{Code: release.CodeNotFound, Message: "the token is not known"}
	}
	if err != nil {
		return "", fmt.Errorf("find token: %w", err)
	}
	return name, nil
}
