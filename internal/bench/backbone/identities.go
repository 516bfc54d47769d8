package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/binary"
	"encoding/pem"
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
	caDir        = "ca"
	databaseFile = "quicflow.db"
	keyFile      = "agents.key"   // PKCS #8; all agents share one key, as making 100,000 takes long and changes nothing
	certsFile    = "agents.certs" // for each agent the length of its certificate in 4 bytes, and the certificate
)

// clientID is the identity of a simulated agent.
func clientID(i int) string { return fmt.Sprintf("bench-%06d", i) }

func clientIDs(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = clientID(i)
	}
	return ids
}

// prepare makes an authority, certificates for n agents, and a database that knows them.
func prepare(ctx context.Context, dir string, n int) error {
	ca, err := pki.LoadOrCreate(filepath.Join(dir, caDir))
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
	path := filepath.Join(dir, databaseFile)
	s, err := store.Open(ctx, store.Config{Driver: store.SQLite, DSN: path, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", path)
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
	client, err := tx.PrepareContext(ctx, `INSERT INTO clients (id, public_key_hash, joined_at) VALUES (?, ?, ?)`)
	if err != nil {
		return err
	}
	defer client.Close()
	certificate, err := tx.PrepareContext(ctx,
		`INSERT INTO certificates (client_id, serial, public_key_hash, not_after, issued_at) VALUES (?, ?, ?, ?, ?)`)
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
		der, serial, notAfter, err := ca.IssueClient(clientID(i), key.Public(), 0)
		if err != nil {
			return err
		}
		file = append(binary.BigEndian.AppendUint32(file, uint32(len(der))), der...)
		if _, err := client.ExecContext(ctx, clientID(i), hash, now); err != nil {
			return err
		}
		if _, err := certificate.ExecContext(ctx, clientID(i), serial, hash, notAfter.UnixMicro(), now); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	return os.WriteFile(path, file, 0o600)
}

// identities reads what prepare made for the first n agents.
func identities(dir string, n int) ([]tls.Certificate, error) {
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

// prepareNATS writes a server's and a client's certificate as PEM files.
func prepareNATS(dir string) error {
	ca, err := pki.LoadOrCreate(filepath.Join(dir, caDir))
	if err != nil {
		return err
	}
	server, err := ca.IssueServer(nil, 0)
	if err != nil {
		return err
	}
	agents, err := identities(dir, 1)
	if err != nil {
		return err
	}
	for name, pair := range map[string]tls.Certificate{"server": server, "client": agents[0]} {
		var chain []byte
		for _, der := range pair.Certificate {
			chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
		}
		key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
		if err != nil {
			return err
		}
		if err := errors.Join(os.WriteFile(filepath.Join(dir, name+".crt"), chain, 0o600),
			os.WriteFile(filepath.Join(dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600)); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "ca.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Certificate().Raw}), 0o600)
}
