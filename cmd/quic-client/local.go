package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"github.com/quicflow/quicflow/internal/auth"
)

// errNoToken says what to do.
func (o *options) errNoToken() error {
	return fmt.Errorf("this host has not joined yet and has no join token. Make one on the server with\n\n"+
		"    quic-ctl agent token --id %s\n\nand start again with --token", o.id)
}

// localServer finds a local server that is the one to connect to, and whose administrator we are.
func (o *options) localServer() (auth.LocalServer, error) {
	if o.serverGiven && slices.ContainsFunc(o.servers, func(server string) bool { return !auth.IsLoopback(server) }) {
		return auth.LocalServer{}, o.errNoToken()
	}
	dir := o.serverDataDir
	if dir == "" {
		state, err := auth.StateDir()
		if err != nil {
			return auth.LocalServer{}, err
		}
		dir = filepath.Join(state, "server")
	}
	s, err := auth.FindServer(dir)
	switch {
	case errors.Is(err, auth.ErrNoServer), errors.Is(err, fs.ErrPermission), err == nil && s.Token == "":
		return s, o.errNoToken()
	}
	return s, err
}

// mint asks a local server for a token that one client may use once.
func mint(ctx context.Context, s auth.LocalServer, id string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Second, errors.New("the server's API does not answer"))
	defer cancel()
	body, err := json.Marshal(map[string]any{"uses": 1, "ttl": "5m", "id": id})
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.API+"/api/agent-tokens", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	request.Header.Set("Authorization", "Bearer "+s.Token)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", fmt.Errorf("ask for a token: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return "", fmt.Errorf("ask for a token: %w", err)
	}
	var answer struct {
		Token  string `json:"token"`
		Detail string `json:"detail"`
	}
	if err := json.Unmarshal(text, &answer); err != nil || response.StatusCode/100 != 2 || answer.Token == "" {
		return "", fmt.Errorf("ask for a token: the server answered %s %s", response.Status, answer.Detail)
	}
	return answer.Token, nil
}
