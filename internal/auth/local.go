package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ServerRuns says whether a server runs on a data directory: it holds the lock there as long as it lives. While none does,
// any user of the machine may listen at the address that the last one left, and must not be sent a token.
func ServerRuns(dataDir string) bool {
	lock, err := os.Open(filepath.Join(dataDir, "lock"))
	if err != nil {
		return false
	}
	defer lock.Close()
	// Shared, so that two who ask at the same time do not take each other for the server.
	return errors.Is(syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}

// LocalServer is a server that runs on this host, as it tells the programs beside it.
type LocalServer struct {
	API   string `json:"api"`  // URL
	QUIC  string `json:"quic"` // host:port
	Token string `json:"-"`    // the administrator's, empty if it is not ours to read
}

// ErrNoServer says that no server runs on a data directory.
var ErrNoServer = errors.New("no server runs")

// FindServer finds the server that runs on a data directory. Errors: ErrNoServer; fs.ErrPermission where the directory is
// not ours to read.
func FindServer(dataDir string) (LocalServer, error) {
	var s LocalServer
	file := filepath.Join(dataDir, "endpoint.json")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !ServerRuns(dataDir) {
		return s, fmt.Errorf("%w on %s", ErrNoServer, dataDir)
	}
	if err != nil {
		return s, fmt.Errorf("find the local server: %w", err)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("find the local server in %s: %w", file, err)
	}
	token, err := os.ReadFile(filepath.Join(dataDir, "admin.token"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return s, fmt.Errorf("read the local server's token: %w", err)
	}
	s.Token = strings.TrimSpace(string(token))
	return s, nil
}

// IsLoopback says whether an address, with or without a port, is one of this host's own.
func IsLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// StateDir is where the programs of QuicFlow keep their data by default: a directory of its own for each.
func StateDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/quicflow", nil
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "quicflow"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find a place for the data: %w", err)
	}
	return filepath.Join(home, ".local", "state", "quicflow"), nil
}
