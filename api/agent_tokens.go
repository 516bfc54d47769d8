package api

import (
	"context"
	"net/http"
	"path"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

const (
	defaultAgentTokenTTL = time.Hour
	maxAgentTokenTTL     = 30 * 24 * time.Hour
)

// NewAgentToken is a join token to be made.
type NewAgentToken struct {
	Uses    int              `json:"uses,omitempty" minimum:"1" maximum:"1000000" default:"1" doc:"How many agents may join with it"`
	TTL     release.Duration `json:"ttl,omitempty" doc:"How long it holds, 30 days at most. Defaults to 1h"`
	ID      string           `json:"id,omitempty" maxLength:"128" default:"*" doc:"Glob that the ids of the agents must match"`
	Replace bool             `json:"replace,omitempty" doc:"Whether a known id may join again with it; its older certificates are revoked then"`
}

// AgentToken is a join token. It cannot be shown again.
type AgentToken struct {
	Token     string    `json:"token"`
	Uses      int       `json:"uses"`
	ID        string    `json:"id"`
	Replace   bool      `json:"replace"`
	ExpiresAt time.Time `json:"expires_at"`
}

func (s *server) registerAgentTokens(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "create-agent-token", Method: http.MethodPost, Path: "/api/agent-tokens", Tags: []string{"clients"},
		Summary: "Make a token with which agents join", DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, in *struct{ Body NewAgentToken }) (*reply[AgentToken], error) {
		ttl := in.Body.TTL.Std()
		if ttl == 0 {
			ttl = defaultAgentTokenTTL
		}
		if ttl > maxAgentTokenTTL {
			return nil, release.Invalid("ttl", "%s is longer than the limit of %s", in.Body.TTL, maxAgentTokenTTL)
		}
		if _, err := path.Match(in.Body.ID, ""); err != nil {
			return nil, release.Invalid("id", "%q is not a valid glob", in.Body.ID)
		}
		id, err := uuid.NewV7()
		if err != nil {
			return nil, err
		}
		secret := auth.NewJoinToken(s.Joins.Fingerprint())
		now := s.Now()
		stored := store.JoinToken{
			ID: id.String(), Hash: secret.Hash(), Pattern: in.Body.ID, Uses: in.Body.Uses, Replace: in.Body.Replace,
			CreatedBy: principal(ctx), CreatedAt: now, ExpiresAt: now.Add(ttl),
		}
		if err := s.Store.CreateJoinToken(ctx, stored); err != nil {
			return nil, err
		}
		s.Logger.InfoContext(ctx, "join token made", "token_id", stored.ID, "by", stored.CreatedBy, "uses", stored.Uses, "ids", stored.Pattern)
		return replyWith(AgentToken{
			Token: secret.String(), Uses: stored.Uses, ID: stored.Pattern, Replace: stored.Replace, ExpiresAt: stored.ExpiresAt,
		}), nil
	})
}
