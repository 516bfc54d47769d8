package rig

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/store"
)

// The files that the processes of a measurement share, in a directory of its own.
const (
	keyFile   = "agents.key"   // PKCS #8; all agents share one key, as making 100,000 takes long and changes nothing
	certsFile = "agents.certs" // for each agent the length of its certificate in 4 bytes, and the certificate
)

// DataDir is the directory of the server's state, laid out as a quic-server has it: the authority, and the SQLite database if
// it is one.
func DataDir(dir string) string { return filepath.Join(dir, "server") }

// DatabaseFile is the SQLite database.
func DatabaseFile(dir string) string { return filepath.Join(DataDir(dir), "quicflow.db") }

// Authority is that of the server and all agents.
func Authority(dir string) (*pki.CA, error) { return pki.LoadOrCreate(DataDir(dir)) }

// ClientID is the identity of a simulated agent.
func ClientID(i int) string { return fmt.Sprintf("bench-%06d", i) }

// ClientIDs are those of the first n agents.
func ClientIDs(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = ClientID(i)
	}
	return ids
}

// Prepare makes an authority, certificates for n agents, and a database that knows them: PostgreSQL's, or without a DSN SQLite.
func Prepare(ctx context.Context, dir, dsn string, n int) error {
	ca, err := Authority(dir)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, keyFile), der, 0o600); err != nil {
		return err
	}
	hash, err := pki.PublicKeyHash(key.Public())
	if err != nil {
		return err
	}
	cfg := store.Config{Driver: store.Postgres, DSN: dsn, Logger: slog.New(slog.DiscardHandler)}
	if dsn == "" {
		cfg.Driver, cfg.DSN = store.SQLite, DatabaseFile(dir)
	}
	s, err := store.Open(ctx, cfg)
	if err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	db, err := sql.Open(string(cfg.Driver), cfg.DSN)
	if err != nil {
		return err
	}
	return errors.Join(enrolAll(ctx, db, ca, key, hash, filepath.Join(dir, certsFile), n), db.Close())
}

// enrolAll does in one transaction what n enrolments leave behind.
func enrolAll(ctx context.Context, db *sql.DB, ca *pki.CA, key *ecdsa.PrivateKey, hash, path string, n int) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	client, err := tx.PrepareContext(ctx, `INSERT INTO clients (id, public_key_hash, joined_at) VALUES ($1, $2, $3)`)
	if err != nil {
		return err
	}
	defer client.Close()
	certificate, err := tx.PrepareContext(ctx,
		`INSERT INTO certificates (client_id, serial, public_key_hash, not_after, issued_at) VALUES ($1, $2, $3, $4, $5)`)
	if err != nil {
		return err
	}
	defer certificate.Close()
	var file []byte
	now := time.Now().UnixMicro()
	for i := range n {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		der, serial, notAfter, err := ca.IssueClient(ClientID(i), key.Public(), 0)
		if err != nil {
			return err
		}
		file = append(binary.BigEndian.AppendUint32(file, uint32(len(der))), der...)
		if _, err := client.ExecContext(ctx, ClientID(i), hash, now); err != nil {
			return err
		}
		if _, err := certificate.ExecContext(ctx, ClientID(i), serial, hash, notAfter.UnixMicro(), now); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	return os.WriteFile(path, file, 0o600)
}

// Identities reads what Prepare made for the first n agents.
func Identities(dir string, n int) ([]tls.Certificate, error) {
	der, err := os.ReadFile(filepath.Join(dir, keyFile))
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(filepath.Join(dir, certsFile))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	all := make([]tls.Certificate, n)
	var length [4]byte
	for i := range all {
		if _, err := io.ReadFull(file, length[:]); err != nil {
			return nil, err
		}
		der := make([]byte, binary.BigEndian.Uint32(length[:]))
		if _, err := io.ReadFull(file, der); err != nil {
			return nil, err
		}
		all[i] = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	return all, nil
}
