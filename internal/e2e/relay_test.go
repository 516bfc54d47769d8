package e2e

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// relayIdle is after what silence a relay forgets an agent's address: longer than a connection lives without a packet. Each
// connection comes from a new address, and a long test has more of them than a process may have sockets.
const relayIdle = 2 * time.Minute

// relay passes UDP packets between agents and a server, unless it is cut.
type relay struct {
	addr string
	cut  atomic.Bool
}

// startRelay runs a relay in front of a server's address until the test ends.
func startRelay(t *testing.T, target string) *relay {
	t.Helper()
	server, err := net.ResolveUDPAddr("udp", target)
	require.NoError(t, err)
	front, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	r := &relay{addr: front.LocalAddr().String()}

	var running sync.WaitGroup
	var mu sync.Mutex
	backs := map[string]*net.UDPConn{} // by the agent's address
	t.Cleanup(func() {
		front.Close()
		mu.Lock()
		for _, back := range backs {
			back.Close()
		}
		mu.Unlock()
		running.Wait()
	})

	backward := func(back *net.UDPConn, agent *net.UDPAddr) {
		packet := make([]byte, 64<<10)
		for {
			_ = back.SetReadDeadline(time.Now().Add(relayIdle))
			n, err := back.Read(packet)
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case errors.Is(err, os.ErrDeadlineExceeded):
				mu.Lock()
				delete(backs, agent.String())
				mu.Unlock()
				back.Close()
				return
			case err == nil && !r.cut.Load():
				_, _ = front.WriteToUDP(packet[:n], agent)
			}
		}
	}
	forward := func() {
		packet := make([]byte, 64<<10)
		for {
			n, agent, err := front.ReadFromUDP(packet)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil || r.cut.Load() {
				continue
			}
			mu.Lock()
			back := backs[agent.String()]
			if back == nil {
				if back, err = net.DialUDP("udp", nil, server); err != nil {
					mu.Unlock()
					continue
				}
				backs[agent.String()] = back
				running.Go(func() { backward(back, agent) })
			}
			mu.Unlock()
			_, _ = back.Write(packet[:n]) // an error here is a server that is down: a lost packet
		}
	}
	running.Go(forward)
	return r
}
