package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"

	"github.com/quicflow/quicflow/internal/bench/rig"
)

// prepareNATS writes a server's and a client's certificate as PEM files.
func prepareNATS(dir string) error {
	ca, err := rig.Authority(dir)
	if err != nil {
		return err
	}
	server, err := ca.IssueServer(nil, 0)
	if err != nil {
		return err
	}
	agents, err := rig.Identities(dir, 1)
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
