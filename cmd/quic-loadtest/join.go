package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/quicflow/quicflow/internal/apiclient"
	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/fleet"
	"github.com/quicflow/quicflow/internal/release"
)

// findLocal gives nil if there is no local server that is the one to connect to, and whose administrator we are.
func (o *options) findLocal() (*auth.LocalServer, error) {
	if o.serverGiven && !auth.IsLoopback(o.server) {
		return nil, nil
	}
	dir := o.serverDataDir
	if dir == "" {
		state, err := auth.StateDir()
		if err != nil {
			return nil, err
		}
		dir = filepath.Join(state, "server")
	}
	s, err := auth.FindServer(dir)
	switch {
	case errors.Is(err, auth.ErrNoServer), errors.Is(err, fs.ErrPermission), err == nil && s.Token == "":
		return nil, nil
	case err != nil:
		return nil, err
	}
	return &s, nil
}

// mint asks the server for a token that all agents may use. It lets known ids join again, as their identities may be lost.
func mint(ctx context.Context, s *auth.LocalServer, prefix string, uses int) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Second, errors.New("the server's API does not answer"))
	defer cancel()
	api, err := apiclient.New(apiclient.Config{Server: s.API, Token: s.Token})
	if err != nil {
		return "", err
	}
	made, err := apiclient.Read[apiclient.AgentToken](api.CreateAgentToken(ctx, apiclient.NewAgentToken{
		Uses: int64(uses), TTL: "24h", ID: prefix + "-*", Replace: true,
	}))
	if err != nil {
		return "", fmt.Errorf("make a join token: %w", err)
	}
	return made.Token, nil
}

// join gives the identities of all agents, those kept before and those that join now.
func (o *options) join(ctx context.Context, ids []string) (_ *fleet.Identities, err error) {
	dir := o.identities
	if dir == "" {
		state, err := auth.StateDir()
		if err != nil {
			return nil, err
		}
		dir = filepath.Join(state, "loadtest")
	}
	token := o.token
	if token == "" {
		token = os.Getenv(tokenVariable)
	}
	if token == "" {
		local, err := o.findLocal()
		if err != nil {
			return nil, err
		}
		if local != nil {
			if token, err = mint(ctx, local, o.prefix, o.count); err != nil {
				return nil, err
			}
			if !o.serverGiven {
				o.server = local.QUIC
			}
		}
	}
	var path string
	if token != "" {
		parsed, err := auth.ParseJoinToken(token)
		if err != nil {
			return nil, fmt.Errorf("--token: %w", err)
		}
		path = filepath.Join(dir, fleet.CacheName(parsed.Fingerprint))
	} else if path, err = fleet.LatestCache(dir); err != nil {
		return nil, o.errNoToken(err)
	}
	cache, err := fleet.OpenCache(path)
	if err != nil {
		return nil, fmt.Errorf("--identities: %w", err)
	}
	defer func() { err = errors.Join(err, cache.Close()) }()
	if missing := len(cache.Missing(ids)); missing > 0 {
		if token == "" {
			return nil, o.errNoToken(fmt.Errorf("%d agents have no identity in %s", missing, path))
		}
		if err := o.enrol(ctx, token, ids, cache); err != nil {
			return nil, err
		}
	}
	return cache.Identities(), nil
}

func (o *options) errNoToken(err error) error {
	return fmt.Errorf("%w, and there is no join token. Make one on the server with\n\n"+
		"    quic-ctl agent token --uses %d --id '%s-*'\n\nand start again with --token", err, o.count, o.prefix)
}

func (o *options) enrol(ctx context.Context, token string, ids []string, cache *fleet.Cache) error {
	var joined atomic.Int64
	progress := o.progress(func() string { return fmt.Sprintf("joined %d of %d", joined.Load(), len(ids)) })
	defer progress.stop()
	err := fleet.Enrol(ctx, fleet.Enrolment{
		Server: o.server, Token: token, IDs: ids, Cache: cache, Insecure: o.insecure, Version: version,
		OnJoined: func(n int) { joined.Store(max(joined.Load(), int64(n))) },
	})
	if bad := (*release.Error)(nil); errors.As(err, &bad) && bad.Field == "token" {
		return fmt.Errorf("--token: %w", err)
	}
	return err
}
