package weaknet

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// wire carries IP packets between the TUN devices of two namespaces, and does to them what netem does: losses are
// independent of each other, a delay keeps the order, and a packet that is reordered goes at once.
type wire struct {
	agent, hub *os.File
	weather    atomic.Pointer[weather]
	shift      atomic.Int64 // added to the agent's UDP port, as by a NAT that forgot its mapping

	passed, lost, overtook, tooLarge atomic.Int64

	done  chan struct{}
	loops sync.WaitGroup
}

func newWire(t testing.TB, agent, hub string) *wire {
	t.Helper()
	w := &wire{done: make(chan struct{})}
	w.weather.Store(&weather{})
	w.agent, w.hub = tun(t, agent), tun(t, hub)
	t.Cleanup(func() {
		close(w.done)
		_ = w.agent.Close()
		_ = w.hub.Close()
		w.loops.Wait()
	})
	return w
}

func tun(t testing.TB, namespace string) *os.File {
	t.Helper()
	var file *os.File
	var err error
	within(t, namespace, func() {
		var fd int
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
			return
		}
		var request *unix.Ifreq
		if request, err = unix.NewIfreq(device); err != nil {
			return
		}
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err == nil {
			file = os.NewFile(uintptr(fd), "tun")
		}
	})
	require.NoError(t, err, "make a TUN device")
	return file
}

func (w *wire) start() {
	w.loops.Go(func() { w.carry(w.agent, w.hub, func(p []byte) { w.translate(p, 20, +1) }) })
	w.loops.Go(func() { w.carry(w.hub, w.agent, func(p []byte) { w.translate(p, 22, -1) }) })
}

type delayed struct {
	packet []byte
	due    time.Time
}

// carry is one direction.
func (w *wire) carry(from, to *os.File, translate func([]byte)) {
	queue := make(chan delayed, 10_000)
	w.loops.Go(func() { w.deliver(queue, to) })
	defer close(queue)
	buffer := make([]byte, 65536)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		packet, now := append([]byte(nil), buffer[:n]...), *w.weather.Load()
		switch {
		case now.mtu > 0 && n > now.mtu:
			w.tooLarge.Add(1)
			continue
		case rand.Float64() < now.loss:
			w.lost.Add(1)
			continue
		}
		w.passed.Add(1)
		translate(packet)
		if now.reorder > 0 && rand.Float64() < now.reorder {
			w.overtook.Add(1)
			_, _ = to.Write(packet)
			continue
		}
		select {
		case queue <- delayed{packet, time.Now().Add(now.delay)}:
		default:
			w.lost.Add(1)
		}
	}
}

func (w *wire) deliver(queue <-chan delayed, to *os.File) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for d := range queue {
		if wait := time.Until(d.due); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-w.done:
				return
			}
		}
		_, _ = to.Write(d.packet)
	}
}

// translate is a NAT for UDP over IPv4 without options: it changes the port at this place.
func (w *wire) translate(packet []byte, at int, sign int64) {
	shift := w.shift.Load()
	if shift == 0 || len(packet) < 28 || packet[0] != 0x45 || packet[9] != unix.IPPROTO_UDP {
		return
	}
	port := int64(binary.BigEndian.Uint16(packet[at:])) + sign*shift
	binary.BigEndian.PutUint16(packet[at:], uint16(port))
	binary.BigEndian.PutUint16(packet[26:], 0) // no checksum
}

func (w *wire) counts() string {
	return fmt.Sprintf("%d packets passed, %d lost, %d overtook, %d were too large", w.passed.Load(), w.lost.Load(), w.overtook.Load(), w.tooLarge.Load())
}
