package api_test

import (
	"context"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// cutStore is a store whose retention has cut the logs up to a sequence number.
type cutStore struct {
	*store.Store
	upTo int64
}

func (c cutStore) Logs(ctx context.Context, taskID string, after int64, filter store.LogFilter, limit int) ([]release.LogRecord, error) {
	return c.Store.Logs(ctx, taskID, max(after, c.upTo), filter, limit)
}
