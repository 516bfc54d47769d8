package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
)

// agent is a quic-client in a data directory of its own.
type agent struct {
	t      *testing.T
	id     string
	dir    string
	server string // address; a relay's, perhaps
	env    []string
	proc   *process
}

// startAgents joins n agents, named host-1 and so on, and waits until they are online.
func startAgents(t *testing.T, s *server, n int) []*agent {
	t.Helper()
	return startAgentsVia(t, s, s.addr, n)
}

// startAgentsVia does so over another address than the server's own.
func startAgentsVia(t *testing.T, s *server, addr string, n int) []*agent {
	t.Helper()
	token := s.joinToken("--uses", strconv.Itoa(n))
	agents := make([]*agent, n)
	for i := range agents {
		agents[i] = &agent{t: t, id: fmt.Sprintf("host-%d", i+1), dir: t.TempDir(), server: addr}
		agents[i].start("--token", token)
	}
	for _, a := range agents {
		s.await(a.id, release.ClientOnline)
	}
	return agents
}

// start starts the agent, or starts it again.
func (a *agent) start(args ...string) {
	a.t.Helper()
	a.proc = start(a.t, a.id, a.log(), a.env, program("quic-client"),
		append([]string{"-s", a.server, "-i", a.id, "--data-dir", a.data(), "--label", "number=" + a.id}, args...)...)
}

func (a *agent) data() string { return filepath.Join(a.dir, "data") }
func (a *agent) log() string  { return filepath.Join(a.dir, "agent.log") }

// await waits until a client has a status.
func (s *server) await(clientID string, status release.ClientStatus) {
	s.t.Helper()
	eventually(s.t, 30*time.Second, clientID+" is "+string(status), func() (bool, any) {
		var c release.Client
		code := s.get("/api/clients/"+clientID, &c)
		return code == 200 && c.Status == status, c
	})
}

// hosts is where the scripts of a test leave their traces: one file a host.
type hosts struct {
	t   *testing.T
	dir string
}

func newHosts(t *testing.T) *hosts { return &hosts{t: t, dir: t.TempDir()} }

// trace gives the lines that scripts left on a host, such as "install 1.0".
func (h *hosts) trace(clientID string) []string {
	h.t.Helper()
	data, err := os.ReadFile(filepath.Join(h.dir, clientID))
	if os.IsNotExist(err) {
		return nil
	}
	require.NoError(h.t, err)
	return lines(string(data))
}

// traced says how many hosts have any line of a version.
func (h *hosts) traced(version string) (n int) {
	h.t.Helper()
	files, err := os.ReadDir(h.dir)
	require.NoError(h.t, err)
	for _, f := range files {
		for _, line := range h.trace(f.Name()) {
			if line == "install "+version || line == "update "+version {
				n++
				break
			}
		}
	}
	return n
}
