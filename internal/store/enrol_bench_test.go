package store_test

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/store"
)

// BenchmarkEnrol redeems a token and records a certificate, 64 at a time as a hub does, in an SQLite file.
func BenchmarkEnrol(b *testing.B) {
	s, err := store.Open(b.Context(), store.Config{Driver: store.SQLite, DSN: filepath.Join(b.TempDir(), "db"), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(b, err)
	defer s.Close()
	require.NoError(b, s.CreateJoinToken(b.Context(), store.JoinToken{ID: "t", Hash: "hash", Uses: 1 << 30, ExpiresAt: time.Now().Add(time.Hour)}))
	var n atomic.Int64
	var workers sync.WaitGroup
	b.ResetTimer()
	for range 64 {
		workers.Go(func() {
			for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
				id := fmt.Sprint("web-", i)
				if err := s.RedeemJoinToken(b.Context(), auth.Redemption{TokenHash: "hash", ClientID: id, PublicKeyHash: "key", At: time.Now()}); err != nil {
					b.Error(err)
				}
				if err := s.RecordCertificate(b.Context(), id, id, time.Now().Add(time.Hour), "key"); err != nil {
					b.Error(err)
				}
			}
		})
	}
	workers.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "enrolments/s")
}
