package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/durable"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

const adminTokenFile = "admin.token"

// tokens is what ensureAdminToken needs of the store.
type tokens interface {
	TokenByHash(ctx context.Context, hash string) (name string, err error)
	PutToken(ctx context.Context, id, name, hash string) error
}

var _ tokens = (*store.Store)(nil)

// ensureAdminToken sees to it that admin.token in the data directory and the store's row for it belong together, whatever
// happened between the two: the file is written first, and a row that is missing is added; without the file a new token
// takes the place of the node's old one. It gives the token if it was made just now.
func ensureAdminToken(ctx context.Context, dir *directory, store tokens, nodeID string) (made string, err error) {
	file := dir.file(adminTokenFile)
	text, err := os.ReadFile(file)
	token := strings.TrimSpace(string(text))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		made, _ = auth.NewAPIToken()
		token = made
		if err := durable.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			return "", fmt.Errorf("write the administrator's token: %w", err)
		}
	case err != nil:
		return "", fmt.Errorf("read the administrator's token: %w", err)
	case !auth.LooksLikeAPIToken(token):
		return "", fmt.Errorf("%s does not hold an API token: remove it to have a new one made", file)
	}

	hash := auth.HashSecret(token)
	_, err = store.TokenByHash(ctx, hash)
	if errors.Is(err, release.ErrNotFound) {
		err = store.PutToken(ctx, "admin-"+nodeID, "admin", hash)
	}
	if err != nil {
		return "", fmt.Errorf("store the administrator's token: %w", err)
	}
	return made, nil
}
