package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/agent/artifacts"
	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/artifact"
	"github.com/quicflow/quicflow/internal/bench/rig"
	"github.com/quicflow/quicflow/internal/config"
	"github.com/quicflow/quicflow/internal/store"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

var quiet = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))

type hubPlan struct {
	Dir  string `json:"dir"`
	Size int64  `json:"size"`
}

type hubAnswer struct {
	Addr   string `json:"addr"`
	SHA256 string `json:"sha256"`
	File   string `json:"file"`
}

// hubRole is a hub with its stores, without the API and Temporal.
type hubRole struct {
	hub  *hub.Hub
	lost atomic.Int64

	stop  context.CancelFunc
	group sync.WaitGroup
	mu    sync.Mutex
	times []time.Duration
	fails int
}

func (r *hubRole) handlers() map[string]rig.Handler {
	return map[string]rig.Handler{"start": rig.On(r.start), "watch": rig.On(r.watch), "watched": rig.On(r.watched)}
}

func (r *hubRole) start(p hubPlan) (hubAnswer, error) {
	ca, err := rig.Authority(p.Dir)
	if err != nil {
		return hubAnswer{}, err
	}
	ctx := context.Background()
	s, err := store.Open(ctx, store.Config{Driver: store.SQLite, DSN: rig.DatabaseFile(p.Dir), Logger: quiet})
	if err != nil {
		return hubAnswer{}, err
	}
	contents, err := artifact.Open(artifact.Config{Dir: artifactsDir(p.Dir), Index: s, Logger: quiet})
	if err != nil {
		return hubAnswer{}, err
	}
	a, err := contents.Put(ctx, artifact.Upload{Name: "bench"}, io.LimitReader(rand.NewChaCha8([32]byte{}), p.Size))
	if err != nil {
		return hubAnswer{}, err
	}
	cfg := hub.Settings(config.Standard())
	cfg.Addr, cfg.NodeID, cfg.CA, cfg.Logger = "127.0.0.1:0", "bench", ca, quiet
	cfg.Registry, cfg.Sink, cfg.Artifacts = s, s, contents
	cfg.Hooks.OnDisconnect = func(hub.Event, error) { r.lost.Add(1) }
	if r.hub, err = hub.New(cfg); err != nil {
		return hubAnswer{}, err
	}
	if err := r.hub.Start(ctx); err != nil {
		return hubAnswer{}, err
	}
	return hubAnswer{Addr: r.hub.Addr().String(), SHA256: a.SHA256, File: filepath.Join(artifactsDir(p.Dir), a.SHA256[:2], a.SHA256[2:])}, nil
}

// requests are what became of those to the agents.
type requests struct {
	Answered int           `json:"answered"`
	Failed   int           `json:"failed"`
	Lost     int64         `json:"sessions_lost"`
	P50      time.Duration `json:"p50"`
	P99      time.Duration `json:"p99"`
	Longest  time.Duration `json:"longest"`
}

// watch asks every agent, ten times a second, until watched.
func (r *hubRole) watch(agents int) (rig.None, error) {
	ctx, stop := context.WithCancel(context.Background())
	r.stop, r.times, r.fails = stop, nil, 0
	for _, id := range rig.ClientIDs(agents) {
		r.group.Go(func() {
			ticker := time.NewTicker(100 * time.Millisecond)
			defer ticker.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-ticker.C:
				}
				began := time.Now()
				_, err := r.hub.Request(ctx, id, &quicflowv1.Request{Body: &quicflowv1.Request_Message{Message: &quicflowv1.Message{Type: "ping"}}})
				took := time.Since(began)
				if ctx.Err() != nil {
					return
				}
				r.mu.Lock()
				if err != nil {
					r.fails++
				} else {
					r.times = append(r.times, took)
				}
				r.mu.Unlock()
			}
		})
	}
	return rig.None{}, nil
}

func (r *hubRole) watched(rig.None) (requests, error) {
	r.stop()
	r.group.Wait()
	q := requests{Answered: len(r.times), Failed: r.fails, Lost: r.lost.Load()}
	if slices.Sort(r.times); len(r.times) > 0 {
		q.P50, q.P99, q.Longest = r.times[len(r.times)/2], r.times[len(r.times)*99/100], r.times[len(r.times)-1]
	}
	return q, nil
}

// httpsRole serves one file over HTTPS.
type httpsRole struct{}

func (r *httpsRole) handlers() map[string]rig.Handler {
	return map[string]rig.Handler{"start": rig.On(func(file string) (string, error) {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) }))
		server.EnableHTTP2 = false // which is slower
		server.StartTLS()
		return server.URL, nil
	})}
}

type agentPlan struct {
	Dir    string `json:"dir"`
	Number int    `json:"number"`
	Of     int    `json:"of"`
	Server string `json:"server"`
}

type getPlan struct {
	Way    string `json:"way"`
	SHA256 string `json:"sha256"`
	URL    string `json:"url"`
	Bare   string `json:"bare"`
}

// chunk is read at a time, in bytes, where nothing else says so.
const chunk = 256 << 10

// agentRole is an agent, or a plain HTTPS client in its place.
type agentRole struct {
	dir    string
	cache  *artifacts.Cache
	client *http.Client
	bare   bareClient
	got    []string
}

func (r *agentRole) handlers() map[string]rig.Handler {
	return map[string]rig.Handler{"start": rig.On(r.start), "get": rig.On(r.get), "forget": rig.On(r.forget)}
}

func (r *agentRole) start(p agentPlan) (rig.None, error) {
	none := rig.None{}
	ca, err := rig.Authority(p.Dir)
	if err != nil {
		return none, err
	}
	identities, err := rig.Identities(p.Dir, p.Of)
	if err != nil {
		return none, err
	}
	identity := identities[p.Number]
	if identity.Leaf, err = x509.ParseCertificate(identity.Certificate[0]); err != nil {
		return none, err
	}
	r.dir = filepath.Join(p.Dir, rig.ClientID(p.Number))
	r.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	if r.cache, err = artifacts.New(artifacts.Config{Dir: filepath.Join(r.dir, "artifacts"), MaxBytes: 1, Logger: quiet}); err != nil {
		return none, err
	}
	connected := make(chan struct{})
	once := sync.OnceFunc(func() { close(connected) })
	a, err := agent.New(agent.Config{
		Servers: []string{p.Server}, ClientID: rig.ClientID(p.Number), DataDir: r.dir, Artifacts: r.cache, Logger: quiet,
		Identity: &agent.Identity{Certificate: identity, Roots: ca.Pool()}, OnConnect: func(*quicflowv1.Welcome) { once() },
	})
	if err != nil {
		return none, err
	}
	go func() { rig.Exit(a.Run(context.Background())) }()
	select {
	case <-connected:
		return none, nil
	case <-time.After(time.Minute):
		return none, errors.New("the agent does not connect")
	}
}

func (r *agentRole) get(p getPlan) (none rig.None, err error) {
	switch p.Way {
	case wayHub:
		_, release, err := r.cache.Get(context.Background(), p.SHA256, "")
		if err == nil {
			defer release() // as the cache keeps nothing, it is gone then
		}
		return none, err
	case wayBare, wayBareChecked:
		content, size, err := r.bare.get(p.Bare)
		if err != nil {
			return none, err
		}
		if p.Way == wayBare {
			return none, discard(content, size)
		}
		return none, r.save(content, p.SHA256)
	}
	answer, err := r.client.Get(p.URL)
	if err != nil {
		return none, err
	}
	defer answer.Body.Close()
	if p.Way == wayPlain {
		return none, r.save(answer.Body, "")
	}
	return none, r.save(answer.Body, p.SHA256)
}

// save writes what comes to a file. With a sum it makes sure of that, and waits for the disk.
func (r *agentRole) save(content io.Reader, sum string) error {
	file, err := os.Create(filepath.Join(r.dir, "download"))
	if err != nil {
		return err
	}
	defer file.Close()
	r.got = append(r.got, file.Name())
	if sum == "" {
		_, err = io.Copy(file, content)
		return err
	}
	h := sha256.New()
	if _, err = io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(file, h)}, struct{ io.Reader }{content}, make([]byte, chunk)); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sum {
		return fmt.Errorf("what came has SHA-256 %s", got)
	}
	return file.Sync()
}

func (r *agentRole) forget(rig.None) (rig.None, error) {
	var errs []error
	for _, path := range r.got {
		errs = append(errs, os.Remove(path))
	}
	r.got = nil
	return rig.None{}, errors.Join(errs...)
}
