package rig

import (
	"context"
	"crypto/x509"
	"log/slog"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quicflow/quicflow/internal/pgtest"
	"github.com/quicflow/quicflow/internal/store"
)

var server *pgtest.Server

func TestMain(m *testing.M) {
	os.Exit(pgtest.Main(m, &server, func() error { return goleak.Find() }))
}

// The agents that were prepared are known to the store, and their certificates are of the server's authority.
func TestPrepare(t *testing.T) {
	const n = 3
	for name, open := range map[string]func(dir string) (dsn string, cfg store.Config){
		"sqlite": func(dir string) (string, store.Config) {
			return "", store.Config{Driver: store.SQLite, DSN: DatabaseFile(dir)}
		},
		"postgres": func(string) (string, store.Config) {
			dsn := server.Database(t)
			return dsn, store.Config{Driver: store.Postgres, DSN: dsn}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			dsn, cfg := open(dir)
			require.NoError(t, Prepare(t.Context(), dir, dsn, n))
			cfg.Logger = slog.New(slog.DiscardHandler)
			s, err := store.Open(t.Context(), cfg)
			require.NoError(t, err)
			defer func() { require.NoError(t, s.Close()) }()
			clients, total, err := s.Clients(context.Background(), store.ClientFilter{Limit: n})
			require.NoError(t, err)
			require.Equal(t, n, total)
			ca, err := Authority(dir)
			require.NoError(t, err)
			identities, err := Identities(dir, n)
			require.NoError(t, err)
			for i, identity := range identities {
				require.Equal(t, ClientID(i), clients[i].ID)
				certificate, err := x509.ParseCertificate(identity.Certificate[0])
				require.NoError(t, err)
				require.Equal(t, ClientID(i), certificate.Subject.CommonName)
				_, err = certificate.Verify(x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
				require.NoError(t, err)
			}
			_, err = Identities(dir, n+1)
			require.Error(t, err)
		})
	}
}
