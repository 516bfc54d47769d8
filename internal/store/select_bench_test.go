package store_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// fleetSize is that of a large hub.
const fleetSize = 100_000

// onBoth runs a benchmark on a store of either database.
func onBoth(b *testing.B, run func(b *testing.B, s *store.Store)) {
	for driver, dsn := range map[store.Driver]func() string{
		store.SQLite:   func() string { return filepath.Join(b.TempDir(), "db") },
		store.Postgres: func() string { return postgres.Database(b) },
	} {
		b.Run(string(driver), func(b *testing.B) {
			s, err := store.Open(b.Context(), store.Config{Driver: driver, DSN: dsn(), Logger: slog.New(slog.DiscardHandler)})
			require.NoError(b, err)
			defer s.Close()
			run(b, s)
		})
	}
}

// fleetOf makes n clients known, with certificates.
func fleetOf(b *testing.B, s *store.Store, n int) []release.ClientSession {
	ctx := b.Context()
	require.NoError(b, s.CreateJoinToken(ctx, store.JoinToken{ID: "t", Hash: "hash", Pattern: "*", Uses: n, ExpiresAt: time.Now().Add(time.Hour)}))
	sessions := make([]release.ClientSession, n)
	const workers = 64
	errs := together(workers, func(w int) error {
		for i := w; i < n; i += workers {
			id := fmt.Sprintf("web-%06d", i)
			if err := s.RedeemJoinToken(ctx, auth.Redemption{TokenHash: "hash", ClientID: id, PublicKeyHash: "key", At: time.Now()}); err != nil {
				return err
			}
			if err := s.RecordCertificate(ctx, id, "serial of "+id, time.Now().Add(time.Hour), "key"); err != nil {
				return err
			}
			sessions[i] = release.ClientSession{ClientID: id, NodeID: "node", Address: "192.0.2.1:1234", AgentVersion: "1.2.3", Hostname: id + ".example.com",
				OS: "linux", Arch: "amd64", Labels: map[string]string{"env": []string{"prod", "test", "stage"}[i%3], "rack": fmt.Sprint("r", i%500), "team": "shop"},
				JournalID: "0123456789abcdef0123456789abcdef", Generation: 3, BootID: "boot", FactsHash: 7, Serial: "serial of " + id, At: time.Now()}
		}
		return nil
	})
	for _, err := range errs {
		require.NoError(b, err)
	}
	return sessions
}

func inBatches[T any](all []T, do func([]T) error) error {
	for len(all) > 0 {
		n := min(len(all), 1000) // as the hub does
		if err := do(all[:n]); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

const typicalFacts = `{"cpus": %d, "cpu_model": "Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz", "memory_mb": %d, "swap_mb": 0, "kernel": "6.1.0-18-amd64",
	"os": {"name": "Debian GNU/Linux 12 (bookworm)", "distribution": "debian", "version": "12"}, "virtualization": "kvm", "boot_time": "2026-01-02T03:04:05Z",
	"disks": [{"mount": "/", "device": "/dev/sda1", "size_mb": 51200}, {"mount": "/var", "device": "/dev/sdb1", "size_mb": 204800}],
	"interfaces": [{"name": "eth0", "mac": "02:42:ac:11:00:02", "addresses": ["10.0.0.7/24", "fe80::42:acff:fe11:2/64"]}], "timezone": "UTC", "container": ""}`

// cpuTime is what this process has used so far: on a machine that does other things too, more telling than the clock.
func cpuTime() time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkSelect picks hosts of a whole fleet.
func BenchmarkSelect(b *testing.B) {
	onBoth(b, func(b *testing.B, s *store.Store) {
		sessions := fleetOf(b, s, fleetSize)
		require.NoError(b, inBatches(sessions, func(some []release.ClientSession) error {
			_, err := s.ConnectClients(b.Context(), some)
			return err
		}))
		facts := make([]release.ClientFacts, len(sessions))
		for i, session := range sessions {
			facts[i] = release.ClientFacts{ClientID: session.ClientID, Hash: 7, JSON: fmt.Appendf(nil, typicalFacts, 1+i%64, 1024*(1+i%64))}
		}
		began := time.Now()
		require.NoError(b, inBatches(facts, func(some []release.ClientFacts) error { return s.StoreFacts(b.Context(), some) }))
		b.Logf("facts of %d hosts stored in %s", len(facts), time.Since(began))
		for _, selector := range []string{"*", "env=prod,os=linux,!maintenance", "env!=prod", "id=web-0*", "status=online,rack in (r1,r2,r3)", "env=test,memory_mb>=32768", "memory_mb>=32768"} {
			b.Run(selector, func(b *testing.B) {
				hit, used := 0, cpuTime()
				for b.Loop() {
					ids, err := s.ResolveTargets(context.Background(), release.Targets{Selector: selector})
					require.NoError(b, err)
					hit = len(ids)
				}
				b.ReportMetric(float64((cpuTime()-used).Milliseconds())/float64(b.N), "cpu-ms/op")
				b.ReportMetric(float64(hit), "hosts")
			})
		}
	})
}

// BenchmarkReconnect begins the sessions of a whole fleet again, in batches as a hub does: with the certificates checked in
// the same calls, and by one query each.
func BenchmarkReconnect(b *testing.B) {
	onBoth(b, func(b *testing.B, s *store.Store) {
		sessions := fleetOf(b, s, fleetSize/5)
		connect := func() error {
			return inBatches(sessions, func(some []release.ClientSession) error {
				_, err := s.ConnectClients(b.Context(), some)
				return err
			})
		}
		b.Run("batched", func(b *testing.B) {
			for b.Loop() {
				require.NoError(b, connect())
			}
			b.ReportMetric(float64(len(sessions)*b.N)/b.Elapsed().Seconds(), "sessions/s")
		})
		b.Run("one by one", func(b *testing.B) {
			alone := make([]release.ClientSession, len(sessions))
			for i, session := range sessions {
				session.Serial = ""
				alone[i] = session
			}
			serials := sessions
			sessions = alone
			for b.Loop() {
				for _, session := range serials {
					valid, err := s.CertificateValid(b.Context(), session.ClientID, session.Serial)
					require.NoError(b, err)
					require.True(b, valid)
				}
				require.NoError(b, connect())
			}
			sessions = serials
			b.ReportMetric(float64(len(sessions)*b.N)/b.Elapsed().Seconds(), "sessions/s")
		})
	})
}
