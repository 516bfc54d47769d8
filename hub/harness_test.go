package hub_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// patience bounds every wait of these tests.
const patience = 10 * time.Second

var ca *pki.CA // of the hubs under test

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "hub")
	if err != nil {
		panic(err)
	}
	if ca, err = pki.LoadOrCreate(dir); err != nil {
		panic(err)
	}
	os.RemoveAll(dir)
	goleak.VerifyTestMain(m)
}

// bench is a hub under test with what it stands on.
type bench struct {
	*hub.Hub
	t        *testing.T
	registry *registry
	sink     *sink
	enroller *enroller
	stopped  bool
}

func start(t *testing.T, change ...func(*hub.Config)) *bench {
	t.Helper()
	b := &bench{t: t, registry: newRegistry(), sink: newSink()}
	b.enroller = &enroller{registry: b.registry, answers: map[string]error{}}
	cfg := hub.Config{
		Addr:         "127.0.0.1:0",
		NodeID:       "node-1",
		CA:           ca,
		Registry:     b.registry,
		Sink:         b.sink,
		Enroller:     b.enroller,
		DrainTimeout: 20 * time.Millisecond,
		Logger:       slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&cfg)
	}
	h, err := hub.New(cfg)
	require.NoError(t, err)
	b.Hub = h
	require.NoError(t, h.Start(t.Context()))
	t.Cleanup(func() {
		if !b.stopped {
			b.stop()
		}
	})
	return b
}

func (b *bench) stop() {
	b.t.Helper()
	b.stopped = true
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(b.t, b.Stop(ctx))
}

// identity is a client certificate.
type identity struct {
	id   string
	cert tls.Certificate
}

func issue(t *testing.T, by *pki.CA, id string, ttl time.Duration) identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, _, _, err := by.IssueClient(id, key.Public(), ttl)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return identity{id: id, cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}}
}

// join makes a client known with a valid certificate.
func (b *bench) join(id string) identity {
	b.t.Helper()
	return b.know(issue(b.t, ca, id, 0))
}

func (b *bench) know(who identity) identity {
	b.registry.mu.Lock()
	defer b.registry.mu.Unlock()
	if _, known := b.registry.epochs[who.id]; !known {
		b.registry.epochs[who.id] = 0
	}
	b.registry.valid[pki.Serial(who.cert.Leaf)] = true
	return who
}

// agent is the other end of a session, frame by frame.
type agent struct {
	t       *testing.T
	id      string
	conn    *quic.Conn
	stream  *quic.Stream
	reader  *wire.Reader
	welcome *quicflowv1.Welcome
}

func (b *bench) dial(alpn string, certs ...tls.Certificate) (*quic.Conn, error) {
	return tlsDial(b.t, b, &tls.Config{RootCAs: ca.Pool(), ServerName: pki.HubServerName, NextProtos: []string{alpn}, Certificates: certs})
}

func tlsDial(t *testing.T, b *bench, cfg *tls.Config) (*quic.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := quic.DialAddr(ctx, b.Addr().String(), cfg, nil)
	if err == nil {
		t.Cleanup(func() { conn.CloseWithError(wire.CloseNormal, "the test is over") })
	}
	return conn, err
}

// address is where the hub sees the agent.
func (a *agent) address() string {
	return fmt.Sprintf("127.0.0.1:%d", a.conn.LocalAddr().(*net.UDPAddr).Port)
}

// open dials and opens the control stream, but says nothing.
func (b *bench) open(who identity) *agent {
	b.t.Helper()
	conn, err := b.dial(wire.ALPN, who.cert)
	require.NoError(b.t, err)
	stream, err := conn.OpenStream()
	require.NoError(b.t, err)
	return &agent{t: b.t, id: who.id, conn: conn, stream: stream, reader: wire.NewReader(stream, wire.MaxFrame)}
}

func helloOf(journal, boot string) *quicflowv1.ToHub {
	return &quicflowv1.ToHub{Body: &quicflowv1.ToHub_Hello{Hello: &quicflowv1.Hello{
		Protocol: wire.Protocol, AgentVersion: "test", JournalId: journal, Generation: 1, BootId: boot,
		Labels: map[string]string{"env": "test"}, Hostname: "host", Os: "linux", Arch: "amd64",
	}}}
}

// greet says hello and gives the hub's answer.
func (b *bench) greet(who identity, journal, boot string) (*agent, *quicflowv1.ToAgent) {
	b.t.Helper()
	a := b.open(who)
	a.send(helloOf(journal, boot))
	return a, a.receive()
}

// connect is greet that must be welcome.
func (b *bench) connect(who identity) *agent {
	b.t.Helper()
	a, answer := b.greet(who, "journal-"+who.id, "boot")
	require.NotNil(b.t, answer.GetWelcome(), "got %v", answer)
	a.welcome = answer.GetWelcome()
	return a
}

func (a *agent) send(frame *quicflowv1.ToHub) {
	a.t.Helper()
	require.NoError(a.t, wire.WriteFrame(a.stream, frame))
}

func (a *agent) receive() *quicflowv1.ToAgent {
	a.t.Helper()
	frame, err := a.tryReceive()
	require.NoError(a.t, err)
	return frame
}

func (a *agent) tryReceive() (*quicflowv1.ToAgent, error) {
	frame := new(quicflowv1.ToAgent)
	if err := a.stream.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	return frame, a.reader.Read(frame)
}

// closedWith waits for the hub to close the connection and checks why.
func (a *agent) closedWith(code quic.ApplicationErrorCode, reason string) {
	a.t.Helper()
	closedWith(a.t, a.conn, code, reason)
}

func closedWith(t *testing.T, conn *quic.Conn, code quic.ApplicationErrorCode, reason string) {
	t.Helper()
	select {
	case <-conn.Context().Done():
	case <-time.After(patience):
		require.FailNow(t, "the hub did not close the connection")
	}
	var closed *quic.ApplicationError
	require.ErrorAs(t, context.Cause(conn.Context()), &closed)
	require.Equal(t, code, closed.ErrorCode, closed.ErrorMessage)
	require.Contains(t, closed.ErrorMessage, reason)
	require.True(t, closed.Remote)
}

func (a *agent) goodbye() {
	a.t.Helper()
	a.send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Goodbye{Goodbye: &quicflowv1.Goodbye{Reason: "test"}}})
	a.closedWith(wire.CloseNormal, "goodbye")
}

func (a *agent) beat(n uint64) {
	a.t.Helper()
	a.send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Heartbeat{Heartbeat: &quicflowv1.Heartbeat{Sequence: n}}})
}

// offer says that there are logs to send.
func (a *agent) offer() {
	a.t.Helper()
	a.offerBytes(0)
}

func (a *agent) offerBytes(n uint64) {
	a.t.Helper()
	a.send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_LogOffer{LogOffer: &quicflowv1.LogOffer{Bytes: n}}})
}

// granted takes the next frame, which must be credit for logs, and gives its bytes.
func (a *agent) granted() int {
	a.t.Helper()
	frame := a.receive()
	require.NotNil(a.t, frame.GetLogCredit(), "got %v", frame)
	return int(frame.GetLogCredit().Bytes)
}

// logs opens a log stream, with credit.
func (a *agent) logs() *quic.SendStream {
	a.t.Helper()
	a.offer()
	a.granted()
	return a.openLogs()
}

func (a *agent) openLogs() *quic.SendStream {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), patience)
	defer cancel()
	s, err := a.conn.OpenUniStreamSync(ctx)
	require.NoError(a.t, err)
	return s
}

// alive checks that the session still works.
func (a *agent) alive() {
	a.t.Helper()
	n := uint64(time.Now().UnixNano())
	a.beat(n)
	require.Equal(a.t, n, a.receive().GetHeartbeatAck().GetSequence())
}

// step is a fresh step id of a client.
func step(clientID string) string {
	return release.StepID(uuid.Must(uuid.NewV7()).String(), release.StepDeploy, clientID, 1)
}

func resultOf(stepID string) *quicflowv1.ToHub {
	return &quicflowv1.ToHub{Body: &quicflowv1.ToHub_Result{Result: &quicflowv1.StepResult{
		StepId: stepID, Outcome: quicflowv1.Outcome_OUTCOME_SUCCEEDED, StdoutTail: []byte("done"), FinishedUnixMs: time.Now().UnixMilli(),
	}}}
}

func ping() *quicflowv1.Request {
	return &quicflowv1.Request{Body: &quicflowv1.Request_Message{Message: &quicflowv1.Message{Type: "ping"}}}
}

// pong answers the next frame, which must be a request.
func (a *agent) pong() {
	a.t.Helper()
	request := a.receive().GetRequest()
	require.NotNil(a.t, request)
	a.answer(request.Id)
}

func (a *agent) answer(id uint64) {
	a.t.Helper()
	a.send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Response{Response: &quicflowv1.Response{
		Id: id, Body: &quicflowv1.Response_Message{Message: &quicflowv1.Message{Type: "pong"}}}}})
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, patience, 2*time.Millisecond, what)
}

func signal(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		require.FailNow(t, "did not happen: "+what)
	}
}

// journalOf collects what hooks report.
type journalOf struct {
	mu   sync.Mutex
	said []string
}

func (j *journalOf) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.said = append(j.said, fmt.Sprintf(format, args...))
}

func (j *journalOf) has(line string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Contains(j.said, line)
}
