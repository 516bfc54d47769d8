package hub_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// slow is what a request of a bystander may take at worst while others misbehave. It takes about a millisecond; the rest is
// for machines that are busy.
const slow = 2 * time.Second

// usual is what half of them may take.
const usual = 100 * time.Millisecond

// heap is what is in use after a garbage collection.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what was in pools goes at the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// lean waits until the heap has grown by less than this many bytes since before.
func lean(t *testing.T, before, bytes int64) {
	t.Helper()
	var grown int64
	for deadline := time.Now().Add(patience); ; {
		if grown = heap() - before; grown < bytes {
			t.Logf("the heap grew by %d KB", grown>>10)
			return
		}
		if time.Now().After(deadline) {
			require.FailNow(t, "memory is held", "the heap grew by %d KB, at most %d KB were expected", grown>>10, bytes>>10)
		}
		runtime.Gosched()
	}
}

// peak gives the most that the heap grew while f ran.
func peak(before int64, f func()) (grown int64) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			grown = max(grown, heap()-before)
		case <-done:
			return grown
		}
	}
}

// fleeting is greet for sessions that come in numbers: nothing of the test holds on to them.
func (b *bench) fleeting(who identity) (*quic.Conn, *quic.Stream) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := quic.DialAddr(ctx, b.Addr().String(),
		&tls.Config{RootCAs: ca.Pool(), ServerName: pki.HubServerName, NextProtos: []string{wire.ALPN}, Certificates: []tls.Certificate{who.cert}}, nil)
	require.NoError(b.t, err)
	stream, err := conn.OpenStream()
	require.NoError(b.t, err)
	require.NoError(b.t, wire.WriteFrame(stream, helloOf("j", "b")))
	welcome := new(quicflowv1.ToAgent)
	require.NoError(b.t, stream.SetReadDeadline(time.Now().Add(patience)))
	require.NoError(b.t, wire.NewReader(stream, wire.MaxFrame).Read(welcome))
	require.NotNil(b.t, welcome.GetWelcome(), "got %v", welcome)
	return conn, stream
}

// bystander is a session that does as it should. It answers pings until it is closed.
type bystander struct {
	b     *bench
	agent *agent
	done  chan struct{}
}

func (b *bench) bystander() *bystander {
	b.t.Helper()
	y := &bystander{b: b, agent: b.connect(b.join("bystander")), done: make(chan struct{})}
	_ = y.agent.stream.SetReadDeadline(time.Time{})
	asked := make(chan uint64, 10)
	go func() {
		defer close(asked)
		for {
			frame := new(quicflowv1.ToAgent)
			if y.agent.reader.Read(frame) != nil {
				return
			}
			if request := frame.GetRequest(); request != nil {
				asked <- request.Id
			}
		}
	}()
	go func() {
		defer close(y.done)
		beat := time.NewTicker(50 * time.Millisecond)
		defer beat.Stop()
		for n := uint64(1); ; n++ {
			answer := &quicflowv1.ToHub{Body: &quicflowv1.ToHub_Heartbeat{Heartbeat: &quicflowv1.Heartbeat{Sequence: n}}}
			select {
			case id, more := <-asked:
				if !more {
					return
				}
				answer = &quicflowv1.ToHub{Body: &quicflowv1.ToHub_Response{Response: &quicflowv1.Response{
					Id: id, Body: &quicflowv1.Response_Message{Message: &quicflowv1.Message{Type: "pong"}}}}}
			case <-beat.C:
			}
			_ = wire.WriteFrame(y.agent.stream, answer)
		}
	}()
	b.t.Cleanup(func() {
		_ = y.agent.conn.CloseWithError(wire.CloseNormal, "")
		<-y.done
	})
	return y
}

// during has the bystander asked all the time while f runs, and at least a hundred times: it must hear and answer soon.
func (y *bystander) during(f func()) {
	t := y.b.t
	t.Helper()
	over, asked := make(chan struct{}), make(chan struct{})
	var took []time.Duration
	var failed error
	go func() {
		defer close(asked)
		for failed == nil {
			select {
			case <-over:
				if len(took) >= 100 {
					return
				}
			case <-time.After(time.Millisecond):
			}
			begun := time.Now()
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			_, failed = y.b.Request(ctx, "bystander", ping())
			cancel()
			took = append(took, time.Since(begun))
		}
	}()
	func() {
		defer func() {
			close(over)
			<-asked
		}()
		f()
	}()
	require.NoError(t, failed)
	slices.Sort(took)
	p50, p99 := took[len(took)/2], took[len(took)*99/100]
	t.Logf("a bystander answered %d times: p50 %v, p99 %v", len(took), p50, p99)
	require.Less(t, p50, usual)
	require.Less(t, p99, slow)
}

// quickHearts is for sessions that shall be found out soon.
func quickHearts(c *hub.Config) {
	c.HelloTimeout = 400 * time.Millisecond
	c.HeartbeatInterval, c.HeartbeatTimeout, c.HeartbeatCheckInterval = 100*time.Millisecond, time.Second, 50*time.Millisecond
}

// trickle writes a byte at a time until the connection ends.
func trickle(conn *quic.Conn, stream io.Writer, data []byte, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for _, b := range data {
		if _, err := stream.Write([]byte{b}); err != nil {
			return
		}
		select {
		case <-ticker.C:
		case <-conn.Context().Done():
			return
		}
	}
}

// The time for a hello counts from the connection, however it is used: late, and then a byte at a time.
func TestTrickledHello(t *testing.T) {
	refused := make(chan time.Time, 1)
	b := start(t, func(c *hub.Config) {
		c.HelloTimeout = time.Second
		c.Hooks.OnRefused = func(hub.Event, error) { refused <- time.Now() }
	})
	conn, err := b.dial(wire.ALPN, b.join("web-1").cert)
	require.NoError(t, err)
	begun := time.Now()
	<-time.After(900 * time.Millisecond)
	stream, err := conn.OpenStream()
	require.NoError(t, err)
	trickle(conn, stream, append(length(1000), make([]byte, 1000)...), 10*time.Millisecond)
	closedWith(t, conn, wire.CloseRefused, "no hello came in time")
	require.WithinDuration(t, begun.Add(time.Second), <-refused, 500*time.Millisecond)
	require.Zero(t, b.Connected())
}

func TestTrickledEnrolment(t *testing.T) {
	b := start(t, quickHearts)
	conn, err := b.dial(wire.ALPNEnrol)
	require.NoError(t, err)
	stream, err := conn.OpenStream()
	require.NoError(t, err)
	begun := time.Now()
	trickle(conn, stream, append(length(1000), make([]byte, 1000)...), 10*time.Millisecond)
	closedWith(t, conn, wire.CloseProtocol, "")
	require.Less(t, time.Since(begun), 3*time.Second)
}

// Sessions that announce the largest frame and then send a byte now and then hold little memory, and not for long.
func TestTrickledFrames(t *testing.T) {
	b := start(t, quickHearts, func(c *hub.Config) { c.HeartbeatTimeout = 2 * time.Second })
	y := b.bystander()
	const many = 40
	culprits := make([]*agent, many)
	for i := range culprits {
		culprits[i] = b.connect(b.join(fmt.Sprintf("web-%d", i)))
	}
	before := heap()
	y.during(func() {
		var group, half sync.WaitGroup
		half.Add(many)
		looked := make(chan struct{})
		for _, a := range culprits {
			group.Go(func() {
				trickle(a.conn, a.stream, append(length(wire.MaxFrame), make([]byte, 20)...), 20*time.Millisecond)
				half.Done()
				<-looked
				trickle(a.conn, a.stream, make([]byte, 1000), 20*time.Millisecond)
			})
		}
		// They rest while the heap is looked at, as what packets take for a moment is no matter of frames: under the race detector that is
		// several times as much, since pools then drop what they are given.
		half.Wait()
		held := heap() - before
		close(looked)
		t.Logf("%d announced frames of 1 MB held %d KB", many, held>>10)
		require.Less(t, held, int64(many*wire.MaxFrame/4))
		group.Wait()
	})
	for _, a := range culprits {
		a.closedWith(wire.CloseHeartbeat, "heartbeats were missed")
	}
	eventually(t, "only the bystander is left", func() bool { return b.Connected() == 1 })
	lean(t, before, 4<<20)
}

// Garbage of every kind, again and again, leaves nothing behind.
func TestGarbageLeavesNothing(t *testing.T) {
	b := start(t)
	y := b.bystander()
	unknown := protowire.AppendBytes(protowire.AppendTag(nil, 999, protowire.BytesType), bytes.Repeat([]byte("x"), 1000))
	kinds := map[string][]byte{
		"oversize":     length(1 << 31),
		"truncated":    append(length(1000), 1, 2, 3),
		"zero length":  length(0),
		"unknown type": append(length(uint32(len(unknown))), unknown...),
		"garbage":      bytes.Repeat([]byte{0, 0, 1, 0xff}, 10_000),
		"second hello": frame(t, helloOf("j", "b")),
	}
	who := b.join("culprit")
	before := heap()
	y.during(func() {
		for range 30 {
			for kind, data := range kinds {
				conn, stream := b.fleeting(who)
				_, _ = stream.Write(data)
				_ = stream.Close()
				select {
				case <-conn.Context().Done():
				case <-time.After(patience):
					require.FailNow(t, "the session goes on after "+kind)
				}
				var closed *quic.ApplicationError
				require.ErrorAs(t, context.Cause(conn.Context()), &closed, kind)
				require.Contains(t, []quic.ApplicationErrorCode{wire.CloseProtocol, wire.CloseFrameTooLarge}, closed.ErrorCode, kind)
			}
		}
	})
	eventually(t, "only the bystander is left", func() bool { return b.Connected() == 1 })
	lean(t, before, 8<<20)
}

// Strangers: without a certificate, with one of another CA, with another protocol. None of them gets a session, and those
// that have one do not notice.
func TestFloodOfStrangers(t *testing.T) {
	b := start(t)
	y := b.bystander()
	otherCA, err := pki.LoadOrCreate(t.TempDir())
	require.NoError(t, err)
	foreign := issue(t, otherCA, "web-1", 0)
	configs := []*tls.Config{
		{NextProtos: []string{wire.ALPN}},
		{NextProtos: []string{wire.ALPN}, Certificates: []tls.Certificate{foreign.cert}},
		{NextProtos: []string{"h3"}},
	}
	before := heap()
	y.during(func() {
		var group sync.WaitGroup
		turn := make(chan struct{}, 20)
		for i := range 300 {
			turn <- struct{}{}
			group.Go(func() {
				defer func() { <-turn }()
				cfg := configs[i%len(configs)].Clone()
				cfg.RootCAs, cfg.ServerName = ca.Pool(), pki.HubServerName
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				conn, err := quic.DialAddr(ctx, b.Addr().String(), cfg, nil)
				if err != nil {
					return
				}
				select { // a client may believe in its handshake until it hears what the hub thinks of its certificate
				case <-conn.Context().Done():
				case <-ctx.Done():
					t.Error("a stranger got in")
				}
				_ = conn.CloseWithError(0, "")
			})
		}
		group.Wait()
	})
	require.Equal(t, 1, b.Connected())
	lean(t, before, 16<<20)
}

// initials is a socket through which clients begin a handshake and say no more: what belongs to the first flight of each
// leaves by a source port of its own, and nothing comes back.
type initials struct {
	net.PacketConn // closed with the test
	hub            net.Addr

	mu   sync.Mutex
	from map[string]net.PacketConn // by destination connection id
	sent int
}

func (i *initials) WriteTo(p []byte, _ net.Addr) (int, error) {
	if len(p) < 1200 || p[0]&0x80 == 0 {
		return len(p), nil
	}
	id := string(p[6 : 6+p[5]])
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.from[id] == nil {
		socket, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		i.from[id] = socket
	}
	i.sent++
	return i.from[id].WriteTo(p, i.hub)
}

// begun is how many handshakes were.
func (i *initials) begun() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.from)
}

// Handshakes that are begun from many ports and not gone on with.
func TestFloodOfHalfHandshakes(t *testing.T) {
	b := start(t)
	y := b.bystander()
	const many = 400
	t.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	silence, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	flood := &initials{PacketConn: silence, hub: b.Addr(), from: map[string]net.PacketConn{}}
	transport := &quic.Transport{Conn: flood}
	before := heap()
	y.during(func() {
		var group sync.WaitGroup
		turn := make(chan struct{}, 60)
		for deadline := time.Now().Add(3 * patience); flood.begun() < many && time.Now().Before(deadline); {
			turn <- struct{}{}
			group.Go(func() {
				defer func() { <-turn }()
				ctx, cancel := context.WithTimeout(context.Background(), 150*time.Millisecond)
				defer cancel()
				_, err := transport.Dial(ctx, silence.LocalAddr(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{wire.ALPN}}, nil)
				if err == nil {
					t.Error("a handshake without answers succeeded")
				}
			})
		}
		group.Wait()
		require.GreaterOrEqual(t, flood.begun(), many)
		b.connect(b.join("latecomer")).alive() // one who means it gets in beside them
	})
	require.NoError(t, transport.Close())
	require.NoError(t, silence.Close())
	t.Logf("%d packets of %d handshakes", flood.sent, len(flood.from))
	for _, socket := range flood.from {
		require.NoError(t, socket.Close())
	}
	lean(t, before, 8<<20) // most of it goes when the handshakes time out
}

// Strangers that ask for certificates, on as many streams as they can, with more behind each request than any request takes: they are
// thrown out, and nothing of it stays.
func TestStrangersThatFillStreams(t *testing.T) {
	b := start(t)
	y := b.bystander()
	const many = 30
	request := frame(t, &quicflowv1.EnrolRequest{TokenSecret: "made up", ClientId: "web-1", CsrDer: []byte("csr")})
	before := heap()
	y.during(func() {
		conns := make([]*quic.Conn, many)
		for i := range conns {
			var err error
			conns[i], err = b.dial(wire.ALPNEnrol)
			require.NoError(t, err)
		}
		held := peak(before, func() {
			var group sync.WaitGroup
			for _, conn := range conns {
				group.Go(func() {
					for {
						stream, err := conn.OpenStream()
						if err != nil {
							return // no more are allowed, or it is over
						}
						_ = stream.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
						_, _ = stream.Write(append(slices.Clone(request), make([]byte, 64<<10)...))
					}
				})
			}
			group.Wait()
		})
		t.Logf("%d strangers held %d KB", many, held>>10)
		for _, conn := range conns {
			closedWith(t, conn, wire.CloseProtocol, "more than a request on a stream")
		}
	})
	require.Equal(t, 1, b.Connected())
	lean(t, before, 8<<20)
}

// An agent needs one bidirectional stream. One that opens as many as it can, and fills them, holds no memory with that.
func TestStreamsBesideTheControlStream(t *testing.T) {
	b := start(t, quickHearts, func(c *hub.Config) { c.HeartbeatTimeout = time.Minute })
	y := b.bystander()
	a := b.connect(b.join("culprit"))
	before := heap()
	y.during(func() {
		opened := 0
		held := peak(before, func() {
			for ; ; opened++ {
				stream, err := a.conn.OpenStream()
				if err != nil {
					return // no more are allowed, or it is over
				}
				_ = stream.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
				_, _ = stream.Write(make([]byte, 64<<10))
			}
		})
		t.Logf("%d streams held %d KB", opened, held>>10)
		require.Positive(t, opened)
		require.Less(t, held, int64(8<<20))
		a.closedWith(wire.CloseProtocol, "a second bidirectional stream")
	})
	eventually(t, "only the bystander is left", func() bool { return b.Connected() == 1 })
	lean(t, before, 8<<20)
}

// An agent that does not read what it is sent: requests to it are refused when its outbox is full, its session ends when
// even acknowledgements have no room, and its memory comes back.
func TestAgentThatNeverReads(t *testing.T) {
	var said journalOf
	b := start(t, func(c *hub.Config) {
		c.Hooks.OnDisconnect = func(e hub.Event, err error) { said.add("%s: %v", e.ClientID, errors.Is(err, hub.ErrProtocol)) }
	})
	y := b.bystander()
	who := b.join("deaf")
	ctx, cancel := context.WithTimeout(context.Background(), 6*patience)
	defer cancel()
	conn, err := quic.DialAddr(ctx, b.Addr().String(),
		&tls.Config{RootCAs: ca.Pool(), ServerName: pki.HubServerName, NextProtos: []string{wire.ALPN}, Certificates: []tls.Certificate{who.cert}},
		&quic.Config{InitialStreamReceiveWindow: 1 << 10, MaxStreamReceiveWindow: 1 << 10, InitialConnectionReceiveWindow: 2 << 10, MaxConnectionReceiveWindow: 2 << 10})
	require.NoError(t, err)
	defer conn.CloseWithError(0, "")
	stream, err := conn.OpenStream()
	require.NoError(t, err)
	a := &agent{t: t, id: who.id, conn: conn, stream: stream, reader: wire.NewReader(stream, wire.MaxFrame)}
	a.send(helloOf("j", "b"))
	require.NotNil(t, a.receive().GetWelcome())

	before := heap()
	y.during(func() {
		var group sync.WaitGroup
		defer group.Wait()
		asking, stop := context.WithCancel(ctx)
		defer stop()
		refused := make(chan struct{})
		var once sync.Once
		big := &quicflowv1.Request{Body: &quicflowv1.Request_Message{Message: &quicflowv1.Message{Type: "ping", Payload: make([]byte, 900<<10)}}}
		for range 12 { // 10 MB, of which it reads nothing
			group.Go(func() {
				if _, err := b.Request(asking, "deaf", big); errors.Is(err, hub.ErrBusy) {
					once.Do(func() { close(refused) })
				}
			})
		}
		signal(t, "a request is refused, as the agent does not read", refused)
		lean(t, before, 12<<20)

		beats := bytes.Repeat(frame(t, &quicflowv1.ToHub{Body: &quicflowv1.ToHub_Heartbeat{Heartbeat: &quicflowv1.Heartbeat{Sequence: 1 << 62}}}), 1000)
		_ = stream.SetWriteDeadline(time.Now().Add(6 * patience))
		for conn.Context().Err() == nil {
			if _, err := stream.Write(beats); err != nil {
				break
			}
		}
		a.closedWith(wire.CloseProtocol, "does not read")
	})
	eventually(t, "the session ends for that", func() bool { return said.has("deaf: true") })
	lean(t, before, 4<<20)
}
