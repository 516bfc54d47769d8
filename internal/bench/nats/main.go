// Command nats is NATS in the roles of the backbone's measurements: a server, responders that answer like agents, and a
// requester that asks like a hub. It is a module of its own, so that nothing of NATS is in the product's; load.go and role.go
// are links to the files of ../backbone, so that both sides are measured by the same code.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/quicflow/quicflow/internal/bench/nats/rig"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "bench-nats: this program is started by bench-backbone")
		os.Exit(2)
	}
	handlers := map[string]map[string]rig.Handler{
		"server":    {"start": rig.On(startServer)},
		"responder": {"start": rig.On(startResponders)},
		"requester": {"start": rig.On(startRequester), "load": rig.On(load)},
	}[os.Args[1]]
	if err := rig.Play(handlers); err != nil {
		fmt.Fprintln(os.Stderr, "bench-nats:", err)
		os.Exit(1)
	}
}

// files are the PEM files that ../backbone wrote.
func files(dir, name string) (tls.Certificate, *x509.CertPool, error) {
	certificate, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return tls.Certificate{}, nil, errors.New("ca.crt holds no certificate")
	}
	return certificate, pool, nil
}

type serverPlan struct {
	Dir string `json:"dir"`
}

type address struct {
	Addr    string `json:"addr"`
	Version string `json:"version"`
}

// startServer listens on a free loopback port, with TLS 1.3 alone and certificates asked of clients as a hub asks.
func startServer(p serverPlan) (address, error) {
	certificate, pool, err := files(p.Dir, "server")
	if err != nil {
		return address{}, err
	}
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, MaxConn: 100_000, TLS: true, TLSVerify: true, TLSTimeout: 60,
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate},
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
		},
	})
	if err != nil {
		return address{}, err
	}
	go s.Start()
	if !s.ReadyForConnections(20 * time.Second) {
		return address{}, errors.New("the NATS server did not become ready")
	}
	return address{Addr: s.Addr().String(), Version: server.VERSION}, nil
}

type clientPlan struct {
	Dir         string `json:"dir"`
	Addr        string `json:"addr"`
	Connections int    `json:"connections"`
	Subjects    int    `json:"subjects"` // of the responders
	Payload     int    `json:"payload"`  // bytes
}

func connect(p clientPlan) ([]*nats.Conn, error) {
	certificate, pool, err := files(p.Dir, "client")
	if err != nil {
		return nil, err
	}
	secure := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate}, RootCAs: pool, ServerName: "localhost"}
	connections := make([]*nats.Conn, p.Connections)
	for i := range connections {
		if connections[i], err = nats.Connect("tls://"+p.Addr, nats.Secure(secure), nats.Timeout(30*time.Second), nats.NoReconnect()); err != nil {
			return nil, fmt.Errorf("connection %d: %w", i, err)
		}
	}
	return connections, nil
}

func subject(i int) string { return "agent." + strconv.Itoa(i) }

// startResponders has each connection echo what comes on a subject of its own.
func startResponders(p clientPlan) (rig.None, error) {
	connections, err := connect(p)
	if err != nil {
		return rig.None{}, err
	}
	for i, c := range connections {
		if _, err := c.Subscribe(subject(i), func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
			return rig.None{}, err
		}
		if err := c.FlushTimeout(30 * time.Second); err != nil {
			return rig.None{}, err
		}
	}
	return rig.None{}, nil
}

var requester struct {
	connections []*nats.Conn
	subjects    []string
	payload     []byte
}

func startRequester(p clientPlan) (rig.None, error) {
	connections, err := connect(p)
	if err != nil {
		return rig.None{}, err
	}
	requester.connections, requester.payload, requester.subjects = connections, make([]byte, p.Payload), nil
	for i := range p.Subjects {
		requester.subjects = append(requester.subjects, subject(i))
	}
	return rig.None{}, nil
}

func load(plan loadPlan) (figures, error) {
	r := &requester
	return runLoad(context.Background(), plan, func(_ context.Context, worker int) error {
		c := r.connections[worker%len(r.connections)]
		answer, err := c.Request(r.subjects[worker%len(r.subjects)], r.payload, 30*time.Second)
		if err == nil && len(answer.Data) != len(r.payload) {
			err = fmt.Errorf("%d bytes came back", len(answer.Data))
		}
		return err
	}), nil
}
