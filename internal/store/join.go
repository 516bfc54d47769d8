package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/release"
)

// JoinToken lets agents enrol.
type JoinToken struct {
	ID        string
	Hash      string // of the secret, which is not stored
	Pattern   string // glob that a client id must match; empty means *
	Uses      int    // at least 1
	Replace   bool   // whether known clients may join again, as a new machine does in place of a broken one
	CreatedBy string
	CreatedAt time.Time // defaults to now
	ExpiresAt time.Time
}

// CreateJoinToken stores a join token.
func (s *Store) CreateJoinToken(ctx context.Context, t JoinToken) error {
	if t.Pattern == "" {
		t.Pattern = "*"
	}
	switch _, err := path.Match(t.Pattern, ""); {
	case err != nil:
		return release.Invalid("pattern", "%q is not a valid glob", t.Pattern)
	case t.Uses < 1:
		return release.Invalid("uses", "%d is less than 1", t.Uses)
	case t.ExpiresAt.IsZero():
		return release.Invalid("expires_at", "a join token must expire")
	}
	return s.write(ctx, "store join token", func(tx conn) error {
		_, err := tx.exec(ctx, `INSERT INTO join_tokens (id, hash, pattern, uses, replaces, created_by, created_at, expires_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			t.ID, t.Hash, t.Pattern, t.Uses, t.Replace, t.CreatedBy, micros(s.orNow(t.CreatedAt)), micros(t.ExpiresAt))
		if isDuplicate(err) {
			return release.Conflict("the join token exists already")
		}
		return err
	})
}

// RedeemJoinToken counts one use of a token and makes the client known, or gives one of the errors above. With a token
// that replaces, it revokes the certificates that the client had. An agent that did not get its answer may ask again:
// the same token, id and key succeed without being counted.
func (s *Store) RedeemJoinToken(ctx context.Context, r auth.Redemption) error {
	if err := release.ValidateClientID(r.ClientID); err != nil {
		return err
	}
	at := s.orNow(r.At)
	return s.writeShared(ctx, "redeem join token", func(ctx context.Context, tx conn) error {
		var token struct {
			ID        string `db:"id"`
			Pattern   string `db:"pattern"`
			Uses      int    `db:"uses"`
			Used      int    `db:"used"`
			Replaces  bool   `db:"replaces"`
			ExpiresAt int64  `db:"expires_at"`
		}
		err := tx.get(ctx, &token, `SELECT id, pattern, uses, used, replaces, expires_at FROM join_tokens WHERE hash = ?`+tx.dialect.lock, r.TokenHash)
		if errors.Is(err, sql.ErrNoRows) {
			return auth.ErrTokenUnknown
		}
		if err != nil {
			return err
		}
		if token.ExpiresAt <= micros(at) {
			return auth.ErrTokenExpired
		}

		var again int
		if err := tx.get(ctx, &again, `SELECT COUNT(*) FROM join_redemptions r JOIN clients c ON c.id = r.client_id
			WHERE r.token_id = ? AND r.client_id = ? AND r.public_key_hash = ? AND c.public_key_hash = r.public_key_hash AND c.revoked_at = 0`,
			token.ID, r.ClientID, r.PublicKeyHash); err != nil {
			return err
		}
		if again > 0 {
			return nil
		}

		if token.Used >= token.Uses {
			return auth.ErrTokenUsedUp
		}
		if matched, err := path.Match(token.Pattern, r.ClientID); err != nil || !matched {
			return auth.ErrIDNotAllowed
		}
		if err := enrol(ctx, tx, r, token.Replaces, at); err != nil {
			return err
		}
		if _, err := tx.exec(ctx, `UPDATE join_tokens SET used = used + 1 WHERE id = ?`, token.ID); err != nil {
			return err
		}
		_, err = tx.exec(ctx, `INSERT INTO join_redemptions (token_id, client_id, public_key_hash, redeemed_at) VALUES (?, ?, ?, ?)
			ON CONFLICT (token_id, client_id, public_key_hash) DO UPDATE SET redeemed_at = excluded.redeemed_at`,
			token.ID, r.ClientID, r.PublicKeyHash, micros(at))
		return err
	})
}

// enrol makes the client known under its key.
func enrol(ctx context.Context, tx conn, r auth.Redemption, replace bool, at time.Time) error {
	created, err := tx.exec(ctx, `INSERT INTO clients (id, public_key_hash, joined_at) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING`,
		r.ClientID, r.PublicKeyHash, micros(at))
	if err != nil || created == 1 {
		return err
	}
	if !replace {
		return auth.ErrIDTaken
	}
	if _, err := tx.exec(ctx, `UPDATE clients SET public_key_hash = ?, revoked_at = 0 WHERE id = ?`, r.PublicKeyHash, r.ClientID); err != nil {
		return err
	}
	return revokeCertificates(ctx, tx, r.ClientID, at)
}

func revokeCertificates(ctx context.Context, tx conn, clientID string, at time.Time) error {
	_, err := tx.exec(ctx, `UPDATE certificates SET revoked_at = ? WHERE client_id = ? AND revoked_at = 0`, micros(at), clientID)
	return err
}

// RecordCertificate makes a certificate valid that was issued to a client, at enrolment or as a renewal. The key must
// be the one that the client enrolled with: a renewal that was under way while the client was revoked or replaced
// comes too late, and gets release.ErrConflict.
func (s *Store) RecordCertificate(ctx context.Context, clientID, serial string, notAfter time.Time, publicKeyHash string) error {
	return s.writeShared(ctx, "record certificate", func(ctx context.Context, tx conn) error {
		var client struct {
			PublicKeyHash string `db:"public_key_hash"`
			RevokedAt     int64  `db:"revoked_at"`
		}
		err := tx.get(ctx, &client, `SELECT public_key_hash, revoked_at FROM clients WHERE id = ?`+tx.dialect.lock, clientID)
		if errors.Is(err, sql.ErrNoRows) {
			return release.NotFound("client", clientID)
		}
		if err != nil {
			return err
		}
		if client.RevokedAt != 0 {
			return release.Conflict("client %s was revoked", clientID)
		}
		if client.PublicKeyHash != publicKeyHash {
			return release.Conflict("client %s has joined with another key", clientID)
		}
		_, err = tx.exec(ctx, `INSERT INTO certificates (client_id, serial, public_key_hash, not_after, issued_at) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (client_id, serial) DO NOTHING`, clientID, serial, publicKeyHash, micros(notAfter), micros(s.now()))
		return err
	})
}

// CertificateValid says whether the certificate was issued to the client and not revoked since. That it may have
// expired is not looked at.
func (s *Store) CertificateValid(ctx context.Context, clientID, serial string) (bool, error) {
	var n int
	err := s.read().get(ctx, &n, `SELECT COUNT(*) FROM certificates WHERE client_id = ? AND serial = ? AND revoked_at = 0`, clientID, serial)
	if err != nil {
		return false, fmt.Errorf("look up certificate: %w", err)
	}
	return n > 0, nil
}

// RevokeClient revokes all certificates of a client. It can join again with a token that replaces.
func (s *Store) RevokeClient(ctx context.Context, clientID string) error {
	return s.write(ctx, "revoke client", func(tx conn) error {
		at := s.now()
		n, err := tx.exec(ctx, `UPDATE clients SET revoked_at = ? WHERE id = ?`, micros(at), clientID)
		if err != nil {
			return err
		}
		if n == 0 {
			return release.NotFound("client", clientID)
		}
		return revokeCertificates(ctx, tx, clientID, at)
	})
}
