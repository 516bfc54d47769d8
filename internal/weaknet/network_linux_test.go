package weaknet

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const (
	hubIP   = "10.98.0.1"
	agentIP = "10.98.0.2"
	movedIP = "10.98.7.7"
	device  = "qf0"
)

// weather is what a network does to packets, in each direction.
type weather struct {
	loss    float64       // share of packets that are lost; 1 is a partition
	delay   time.Duration // each way
	reorder float64       // share of packets that do not wait for delay, and so overtake others
	mtu     int           // larger IP packets are lost without a word; 0: all pass. Needs a wire of our own.
}

// network is two namespaces, the hub's and the agent's, and a wire between them.
type network struct {
	t          testing.TB
	hub, agent string // names of the namespaces
	wire       *wire  // nil: a veth pair under netem of the kernel
}

var networks atomic.Int64

// hasNetem says whether the kernel has sch_netem.
var hasNetem bool

// newNetwork lays a network under netem if the kernel has it, and under a wire of our own if not.
func newNetwork(t testing.TB) *network { return lay(t, 1500, !hasNetem) }

// lay makes a network. Devices have this MTU.
func lay(t testing.TB, mtu int, ownWire bool) *network {
	t.Helper()
	name := fmt.Sprintf("qf%d-%d", os.Getpid(), networks.Add(1))
	n := &network{t: t, hub: name + "h", agent: name + "a"}
	for _, ns := range []string{n.hub, n.agent} {
		ip(t, "netns", "add", ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
		ip(t, "-n", ns, "link", "set", "lo", "up")
	}
	if ownWire {
		n.wire = newWire(t, n.agent, n.hub)
	} else {
		ip(t, "-n", n.hub, "link", "add", device, "type", "veth", "peer", "name", device, "netns", n.agent)
	}
	for ns, address := range map[string]string{n.hub: hubIP, n.agent: agentIP} {
		ip(t, "-n", ns, "link", "set", device, "mtu", fmt.Sprint(mtu), "up")
		ip(t, "-n", ns, "addr", "add", address+"/32", "dev", device)
		ip(t, "-n", ns, "route", "add", "default", "dev", device)
	}
	if ownWire {
		n.wire.start()
	}
	return n
}

// set changes the weather.
func (n *network) set(w weather) {
	n.t.Helper()
	if n.wire != nil {
		n.wire.weather.Store(&w)
		return
	}
	require.Zero(n.t, w.mtu, "netem has no MTU of its own")
	for _, ns := range []string{n.hub, n.agent} {
		args := netemArguments(w)
		out, err := exec.Command("tc", append([]string{"-n", ns, "qdisc", "replace", "dev", device, "root", "netem"}, args...)...).CombinedOutput()
		require.NoError(n.t, err, "%s: %s", args, out)
	}
}

func netemArguments(w weather) []string {
	args := []string{"limit", "10000", "loss", fmt.Sprintf("%g%%", w.loss*100), "delay", fmt.Sprintf("%gms", float64(w.delay.Microseconds())/1000)}
	if w.reorder > 0 {
		args = append(args, "reorder", fmt.Sprintf("%g%%", w.reorder*100))
	}
	return args
}

// move gives the agent's host another address, in place of the first: after it, with nothing between, or before it.
func (n *network) move(gap time.Duration) {
	n.t.Helper()
	if gap == 0 {
		ip(n.t, "-n", n.agent, "addr", "add", movedIP+"/32", "dev", device)
		ip(n.t, "-n", n.agent, "addr", "del", agentIP+"/32", "dev", device)
		return
	}
	ip(n.t, "-n", n.agent, "route", "del", "default")
	ip(n.t, "-n", n.agent, "addr", "del", agentIP+"/32", "dev", device)
	pause(gap)
	ip(n.t, "-n", n.agent, "addr", "add", movedIP+"/32", "dev", device)
	ip(n.t, "-n", n.agent, "route", "add", "default", "dev", device)
}

// what it is, for the figures.
func (n *network) String() string {
	if n.wire == nil {
		return "netem on a veth pair"
	}
	return "a wire of the test's own between two TUN devices (" + n.wire.counts() + ")"
}

// pause lets time pass that a scenario is about: how long a network is broken.
func pause(d time.Duration) { <-time.After(d) }

func ip(t testing.TB, args ...string) {
	t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	require.NoError(t, err, "ip %s: %s", strings.Join(args, " "), out)
}

// within runs f in a network namespace: the sockets that f itself opens belong to it. The thread is not used again.
func within(t testing.TB, namespace string, f func()) {
	t.Helper()
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, so that the thread ends with the goroutine
		err := enter(namespace)
		if err == nil {
			f()
		}
		failed <- err
	}()
	require.NoError(t, <-failed, "enter network namespace")
}

func enter(namespace string) error {
	file, err := os.Open("/var/run/netns/" + namespace)
	if err != nil {
		return err
	}
	defer file.Close()
	return unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
}
