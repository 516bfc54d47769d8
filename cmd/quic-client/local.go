package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/quicflow/quicflow/internal/auth"
)

// localServer is a server on this host whose data directory we may read, so whose administrator we are.
type localServer struct {
	dir   string
	token string // the administrator's
	API   string `json:"api"`
	QUIC  string `json:"quic"`
}

// errNoToken says what to do.
func (o *options) errNoToken() error {
	return fmt.Errorf("this host has not joined yet and has no join token. Make one on the server with\n\n"+
		"    quic-ctl agent token --id %s\n\nand start again with --token", o.id)
}

// localServer finds a local server that is the one to connect to.
func (o *options) localServer() (*localServer, error) {
	if o.serverGiven && !allLoopback(o.servers) {
		return nil, o.errNoToken()
	}
	dir := o.serverDataDir
	if dir == "" {
		state, err := stateDir()
		if err != nil {
			return nil, err
		}
		dir = filepath.Join(state, "server")
	}
	// Without a server anyone may listen at the address that the last one left.
	endpoint, err := os.ReadFile(filepath.Join(dir, "endpoint.json"))
	if err != nil || !auth.ServerRuns(dir) {
		return nil, o.errNoToken()
	}
	token, err := os.ReadFile(filepath.Join(dir, "admin.token"))
	if err != nil {
		return nil, o.errNoToken()
	}
	s := &localServer{dir: dir, token: strings.TrimSpace(string(token))}
	if err := json.Unmarshal(endpoint, s); err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, "endpoint.json"), err)
	}
	return s, nil
}

func allLoopback(servers []string) bool {
	for _, server := range servers {
		host, _, err := net.SplitHostPort(server)
		if err != nil {
			host = server
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return false
		}
	}
	return true
}

// mint asks the server for a token that one client may use once.
func (s *localServer) mint(ctx context.Context, id string) (string, error) {
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
	request.Header.Set("Authorization", "Bearer "+s.token)
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
