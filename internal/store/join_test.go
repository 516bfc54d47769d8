package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

var tokenTests = map[string]func(*fixture){
	"the first token is made once": func(f *fixture) {
		created := make([]bool, 8)
		errs := together(len(created), func(i int) (err error) {
			created[i], err = f.EnsureAdminToken(f.ctx(), fmt.Sprint("admin", i), fmt.Sprint("hash", i))
			return err
		})
		require.NoError(f, errors.Join(errs...))
		winners := 0
		for i, c := range created {
			name, err := f.TokenByHash(f.ctx(), fmt.Sprint("hash", i))
			if c {
				winners++
				require.NoError(f, err)
				require.Equal(f, fmt.Sprint("admin", i), name)
			} else {
				require.ErrorIs(f, err, release.ErrNotFound)
			}
		}
		require.Equal(f, 1, winners)
	},
	"no first token beside another": func(f *fixture) {
		require.NoError(f, f.PutToken(f.ctx(), "id", "someone", "hash"))
		created, err := f.EnsureAdminToken(f.ctx(), "admin", "other")
		require.NoError(f, err)
		require.False(f, created)
	},
	"a token is replaced under its id": func(f *fixture) {
		require.NoError(f, f.PutToken(f.ctx(), "id", "someone", "old"))
		require.NoError(f, f.PutToken(f.ctx(), "id", "someone", "new"))
		_, err := f.TokenByHash(f.ctx(), "old")
		require.ErrorIs(f, err, release.ErrNotFound)
		require.ErrorIs(f, f.PutToken(f.ctx(), "other", "someone else", "new"), release.ErrConflict)
	},
}

var joinTests = map[string]func(*fixture){
	"one use is redeemed once": func(f *fixture) {
		f.joinToken(store.JoinToken{Uses: 1})
		errs := together(20, func(i int) error { return f.redeem(fmt.Sprint("host-", i), "key") })
		won := 0
		for i, err := range errs {
			_, missing := f.ClientByID(f.ctx(), fmt.Sprint("host-", i))
			if err == nil {
				won++
				require.NoError(f, missing)
				continue
			}
			require.ErrorIs(f, err, auth.ErrTokenUsedUp)
			require.ErrorIs(f, missing, release.ErrNotFound)
		}
		require.Equal(f, 1, won)
	},
	"work that shares a transaction fails by itself": func(f *fixture) {
		f.joinToken(store.JoinToken{Uses: 1})
		broken := errors.New("after all")
		errs := together(60, func(i int) error {
			insert := fmt.Sprintf("INSERT INTO clients (id, public_key_hash, joined_at) VALUES ('host-%02d', 'key', 1)", i)
			switch i % 3 {
			case 0:
				return f.WriteShared(f.ctx(), nil, insert)
			case 1:
				return f.WriteShared(f.ctx(), broken, insert)
			}
			return f.WriteShared(f.ctx(), nil, insert, insert) // the key is taken
		})
		for i, err := range errs {
			_, missing := f.ClientByID(f.ctx(), fmt.Sprintf("host-%02d", i))
			switch i % 3 {
			case 0:
				require.NoError(f, err)
				require.NoError(f, missing)
				continue
			case 1:
				require.ErrorIs(f, err, broken)
			default:
				require.Error(f, err)
			}
			require.ErrorIs(f, missing, release.ErrNotFound)
		}
	},
	"a caller that gives up does not disturb the others": func(f *fixture) {
		f.joinToken(store.JoinToken{Uses: 1000})
		errs := together(60, func(i int) error {
			ctx, cancel := context.WithCancel(f.ctx())
			defer cancel()
			if i%2 == 1 {
				time.AfterFunc(time.Duration(i)*50*time.Microsecond, cancel)
			}
			return f.RedeemJoinToken(ctx, auth.Redemption{TokenHash: "token", ClientID: fmt.Sprint("host-", i), PublicKeyHash: "key"})
		})
		for i, err := range errs {
			_, missing := f.ClientByID(f.ctx(), fmt.Sprint("host-", i))
			if err == nil {
				require.NoError(f, missing)
				continue
			}
			require.Equal(f, 1, i%2, "%v", err)
			if f.config.Driver == store.SQLite { // PostgreSQL may have committed when the answer was given up
				require.ErrorIs(f, err, context.Canceled)
				require.ErrorIs(f, missing, release.ErrNotFound)
			}
		}
		require.NoError(f, f.redeem("later", "key"))
	},
	"one identity is taken once": func(f *fixture) {
		f.joinToken(store.JoinToken{Uses: 100})
		errs := together(20, func(i int) error { return f.redeem("host", fmt.Sprint("key", i)) })
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else {
				require.ErrorIs(f, err, auth.ErrIDTaken)
			}
		}
		require.Equal(f, 1, won)
	},
	"asking again with the same key is not counted": func(f *fixture) {
		f.joinToken(store.JoinToken{Uses: 1})
		for range 3 {
			require.NoError(f, f.redeem("host", "key"))
		}
		require.ErrorIs(f, f.redeem("host", "another key"), auth.ErrTokenUsedUp)
		require.NoError(f, f.RevokeClient(f.ctx(), "host"))
		require.ErrorIs(f, f.redeem("host", "key"), auth.ErrTokenUsedUp)
	},
	"refusals": func(f *fixture) {
		f.joinToken(store.JoinToken{Uses: 10, Pattern: "web-*"})
		require.ErrorIs(f, f.RedeemJoinToken(f.ctx(), auth.Redemption{TokenHash: "other", ClientID: "web-1"}), auth.ErrTokenUnknown)
		require.ErrorIs(f, f.redeem("db-1", "key"), auth.ErrIDNotAllowed)
		require.ErrorIs(f, f.redeem("web/1", "key"), release.ErrInvalid)
		require.NoError(f, f.redeem("web-1", "key"))
		require.ErrorIs(f, f.redeem("web-1", "another key"), auth.ErrIDTaken)
		f.advance(time.Hour)
		require.ErrorIs(f, f.redeem("web-2", "key"), auth.ErrTokenExpired)
		require.ErrorIs(f, f.redeem("web-1", "key"), auth.ErrTokenExpired)
	},
	"a token must be sound": func(f *fixture) {
		expires := f.now().Add(time.Hour)
		require.ErrorIs(f, f.CreateJoinToken(f.ctx(), store.JoinToken{ID: "a", Hash: "a", ExpiresAt: expires}), release.ErrInvalid)
		require.ErrorIs(f, f.CreateJoinToken(f.ctx(), store.JoinToken{ID: "a", Hash: "a", Uses: 1}), release.ErrInvalid)
		require.ErrorIs(f, f.CreateJoinToken(f.ctx(), store.JoinToken{ID: "a", Hash: "a", Uses: 1, Pattern: "[", ExpiresAt: expires}), release.ErrInvalid)
	},
	"replacing revokes what the client had": func(f *fixture) {
		f.joinToken(store.JoinToken{Uses: 10, Replace: true})
		require.NoError(f, f.redeem("host", "old key"))
		require.NoError(f, f.RecordCertificate(f.ctx(), "host", "1", f.now().Add(time.Hour), "old key"))
		f.requireValid("host", "1", true)
		f.requireValid("host", "2", false)
		f.requireValid("other", "1", false)

		require.NoError(f, f.redeem("host", "new key"))
		f.requireValid("host", "1", false)
		require.ErrorIs(f, f.RecordCertificate(f.ctx(), "host", "2", f.now().Add(time.Hour), "old key"), release.ErrConflict,
			"a renewal that was under way")
		require.NoError(f, f.RecordCertificate(f.ctx(), "host", "3", f.now().Add(time.Hour), "new key"))
		require.NoError(f, f.RecordCertificate(f.ctx(), "host", "3", f.now().Add(time.Hour), "new key"), "said twice")
		f.requireValid("host", "3", true)
	},
	"revoking": func(f *fixture) {
		f.joinToken(store.JoinToken{Uses: 10, Replace: true})
		require.ErrorIs(f, f.RevokeClient(f.ctx(), "host"), release.ErrNotFound)
		require.ErrorIs(f, f.RecordCertificate(f.ctx(), "host", "1", f.now(), "key"), release.ErrNotFound)
		require.NoError(f, f.redeem("host", "key"))
		require.NoError(f, f.RecordCertificate(f.ctx(), "host", "1", f.now(), "key"))
		require.NoError(f, f.RevokeClient(f.ctx(), "host"))
		f.requireValid("host", "1", false)
		require.ErrorIs(f, f.RecordCertificate(f.ctx(), "host", "2", f.now(), "key"), release.ErrConflict)
		_, err := f.ResolveTargets(f.ctx(), release.Targets{Clients: []string{"host"}})
		require.ErrorIs(f, err, release.ErrInvalid)

		require.NoError(f, f.redeem("host", "key"), "joins again")
		require.NoError(f, f.RecordCertificate(f.ctx(), "host", "3", f.now(), "key"))
		f.requireValid("host", "1", false)
		f.requireValid("host", "3", true)
	},
}

func (f *fixture) joinToken(t store.JoinToken) {
	f.Helper()
	t.ID, t.Hash, t.ExpiresAt = "token", "token", f.now().Add(time.Hour)
	require.NoError(f, f.CreateJoinToken(f.ctx(), t))
}

func (f *fixture) redeem(id, key string) error {
	return f.RedeemJoinToken(f.ctx(), auth.Redemption{TokenHash: "token", ClientID: id, PublicKeyHash: key})
}

func (f *fixture) requireValid(id, serial string, want bool) {
	f.Helper()
	valid, err := f.CertificateValid(f.ctx(), id, serial)
	require.NoError(f, err)
	require.Equal(f, want, valid)
}

func TestRefusalsAreForTheUser(t *testing.T) {
	require.Equal(t, release.CodeForbidden, release.CodeOf(fmt.Errorf("redeem: %w", auth.ErrTokenExpired)))
	require.NotErrorIs(t, auth.ErrTokenExpired, auth.ErrTokenUnknown)
}
