package hub

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

const (
	// linger is how long a refused agent may take to read why and to close the connection.
	linger = time.Second
	// retrySoon is for refusals whose reason passes by itself.
	retrySoon = time.Second
)

// refusal is why a session is not accepted.
type refusal struct {
	code       quicflowv1.RefusalCode
	message    string // for the agent
	retryAfter time.Duration
	err        error // for operators
}

func (r *refusal) Error() string { return r.message }
func (r *refusal) Unwrap() error { return r.err }

func refuse(code quicflowv1.RefusalCode, retryAfter time.Duration, err error, format string, args ...any) *refusal {
	return &refusal{code: code, message: fmt.Sprintf(format, args...), retryAfter: retryAfter, err: err}
}

// handshake leads a connection from its first stream to Welcome. On an error the connection is closed.
func (h *Hub) handshake(conn *quic.Conn) (*session, error) {
	stop := context.AfterFunc(h.accepting, func() { closeConn(conn, end(wire.CloseDraining, ErrDraining)) })
	defer stop()
	ctx, cancel := context.WithTimeout(conn.Context(), h.cfg.HelloTimeout)
	defer cancel()
	clientID, err := pki.ClientID(conn.ConnectionState().TLS.PeerCertificates[0])
	if err != nil {
		return nil, h.reject(conn, nil, "", refuse(quicflowv1.RefusalCode_REFUSAL_CODE_PROTOCOL, 0, err, "the certificate names no client id"))
	}
	stream, err := conn.AcceptStream(ctx)
	if err != nil {
		return nil, h.reject(conn, nil, clientID, silent(err))
	}
	s := &session{hub: h, id: clientID, conn: conn, stream: stream}
	s.frames = wire.NewReader(h.metrics.reader(stream), wire.MaxHelloFrame)
	s.out = wire.NewOutbox(stream, s)
	hello, err := s.readHello(ctx)
	if err == nil {
		err = s.admit(ctx, hello)
	}
	if err != nil {
		return nil, h.reject(conn, stream, clientID, err)
	}
	return s, nil
}

func silent(err error) *refusal {
	return refuse(quicflowv1.RefusalCode_REFUSAL_CODE_PROTOCOL, 0, err, "no hello came in time")
}

// readHello takes in the first frame. The deadline of ctx holds for all of it, however it trickles in.
func (s *session) readHello(ctx context.Context) (*quicflowv1.Hello, error) {
	deadline, _ := ctx.Deadline()
	if err := s.stream.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	frame := new(quicflowv1.ToHub)
	if err := s.frames.Read(frame); err != nil {
		if cause := s.readError("control stream", err); !errors.Is(cause, ErrNetwork) {
			return nil, cause // garbage is not worth a refusal
		}
		return nil, silent(err)
	}
	hello := frame.GetHello()
	switch {
	case hello == nil:
		return nil, refuse(quicflowv1.RefusalCode_REFUSAL_CODE_PROTOCOL, 0, nil, "the first frame must be a hello")
	case hello.Protocol != wire.Protocol:
		return nil, refuse(quicflowv1.RefusalCode_REFUSAL_CODE_PROTOCOL, 0, nil, "protocol version %d is not understood; this hub speaks %d", hello.Protocol, wire.Protocol)
	case hello.JournalId == "":
		return nil, refuse(quicflowv1.RefusalCode_REFUSAL_CODE_PROTOCOL, 0, nil, "the hello names no journal")
	}
	s.received("hello")
	return hello, s.stream.SetReadDeadline(time.Time{})
}

// admit checks who comes, gives it the place of its identity, writes the session down and welcomes the agent.
func (s *session) admit(ctx context.Context, hello *quicflowv1.Hello) error {
	h := s.hub
	s.serial = pki.Serial(s.conn.ConnectionState().TLS.PeerCertificates[0])
	s.journalID, s.bootID = hello.JournalId, hello.BootId
	s.seen()
	registration, old, err := h.reserve(s, hello)
	if errors.Is(err, errCheckFirst) {
		if err := s.checkCertificate(ctx); err != nil {
			return err
		}
		registration, old, err = h.reserve(s, hello)
	}
	if err != nil {
		var r *refusal
		if errors.As(err, &r) && r.code == quicflowv1.RefusalCode_REFUSAL_CODE_DUPLICATE_IDENTITY {
			call2(h.cfg.Hooks.OnDuplicateIdentity, s.event(), old.conn.RemoteAddr().String())
		}
		return err
	}
	if old != nil {
		old.close(end(wire.CloseTakenOver, ErrTakenOver))
	}
	var outcome registered
	select {
	case outcome = <-registration:
	case <-s.conn.Context().Done():
		// The registrar may be about to write it down; what it says is awaited, so that it can be taken back.
		outcome = <-registration
		h.abandon(s, outcome.Epoch)
		return fmt.Errorf("%w: %w", ErrNetwork, context.Cause(s.conn.Context()))
	}
	switch {
	case outcome.err != nil:
		h.abandon(s, 0)
		return refuse(quicflowv1.RefusalCode_REFUSAL_CODE_INTERNAL, retrySoon, outcome.err, "the session could not be written down")
	case !outcome.known:
		h.abandon(s, 0)
		return refuse(quicflowv1.RefusalCode_REFUSAL_CODE_REVOKED, 0, ErrRevoked, "client %q is not known here; join again", s.id)
	case outcome.Revoked || outcome.Epoch == 0:
		h.abandon(s, 0)
		return revoked()
	}
	return h.welcome(s, outcome.ClientEntry)
}

func revoked() *refusal {
	return refuse(quicflowv1.RefusalCode_REFUSAL_CODE_REVOKED, 0, ErrRevoked, "the certificate is revoked or not known here; join again")
}

// errCheckFirst is for a newcomer that shows another certificate than the session whose place it would take. The registrar
// checks certificates, in batches, but only when the place is taken already: whoever shows a revoked one must not end the
// session of the rightful host. With the same certificate, what is true of the one is true of the other.
var errCheckFirst = errors.New("hub: the certificate is to be checked before the place is taken")

func (s *session) checkCertificate(ctx context.Context) error {
	valid, err := s.hub.cfg.Registry.CertificateValid(ctx, s.id, s.serial)
	if err != nil {
		return refuse(quicflowv1.RefusalCode_REFUSAL_CODE_INTERNAL, retrySoon, err, "the certificate could not be checked")
	}
	if !valid {
		return revoked()
	}
	s.checked = true
	return nil
}

// reserve gives s the place of its identity, in front of the session that holds it if rule 10 says so, and queues it for
// the registrar: within the lock, so that the order in which places are taken is the order of epochs.
// It answers the session that held the place too, which the caller closes.
func (h *Hub) reserve(s *session, hello *quicflowv1.Hello) (done <-chan registered, old *session, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.draining {
		return nil, nil, refuse(quicflowv1.RefusalCode_REFUSAL_CODE_DRAINING, 0, ErrDraining, "the hub is stopping")
	}
	old = h.sessions[s.id]
	if old == nil && len(h.sessions) >= h.cfg.MaxClients {
		return nil, nil, refuse(quicflowv1.RefusalCode_REFUSAL_CODE_FULL, 10*retrySoon, nil, "the hub holds as many agents as it may (%d)", h.cfg.MaxClients)
	}
	if old != nil {
		if !s.checked && old.serial != s.serial {
			return nil, nil, errCheckFirst
		}
		if !s.mayReplace(old) {
			return nil, old, refuse(quicflowv1.RefusalCode_REFUSAL_CODE_DUPLICATE_IDENTITY, 0, nil,
				"duplicate identity: %q is connected from %s", s.id, old.conn.RemoteAddr())
		}
		old.superseded = true
		if old.accepted {
			h.ends[s.id] = sessionEnd{at: h.cfg.Now()}
		}
	}
	h.sessions[s.id] = s
	return h.registrar.connect(release.ClientSession{
		ClientID:     s.id,
		NodeID:       h.cfg.NodeID,
		Address:      s.conn.RemoteAddr().String(),
		AgentVersion: text(hello.AgentVersion),
		Hostname:     text(hello.Hostname),
		OS:           text(hello.Os),
		Arch:         text(hello.Arch),
		Labels:       labels(hello.Labels),
		JournalID:    text(hello.JournalId),
		Generation:   hello.Generation,
		BootID:       text(hello.BootId),
		FactsHash:    hello.FactsHash,
		Serial:       s.serial,
		At:           h.cfg.Now(),
	}), old, nil
}

// mayReplace is rule 10: the same agent on the same boot of its host, or an old session that is gone or silent. Who still
// awaits the check of its certificate gives way to who has another one that was checked.
func (s *session) mayReplace(old *session) bool {
	return old.journalID == s.journalID && old.bootID == s.bootID || s.checked && !old.accepted && !old.checked ||
		old.since(&old.lastSeen) > s.hub.cfg.HeartbeatInterval || old.conn.Context().Err() != nil
}

// abandon gives back the place of a session that was not accepted, and takes back what the registrar wrote.
func (h *Hub) abandon(s *session, epoch int64) {
	h.mu.Lock()
	if h.sessions[s.id] == s {
		delete(h.sessions, s.id)
	}
	h.mu.Unlock()
	if epoch != 0 {
		h.registrar.disconnect(release.ClientEnd{ClientID: s.id, Epoch: epoch, At: h.cfg.Now()})
	}
	h.watchers.notify(s.id)
}

// welcome makes a session count.
func (h *Hub) welcome(s *session, entry release.ClientEntry) error {
	epoch := entry.Epoch
	now := h.cfg.Now()
	s.lastBeat.Store(now.UnixNano())
	s.lastSeen.Store(now.UnixNano())
	h.mu.Lock()
	if draining, superseded := h.draining, s.superseded; draining || superseded {
		h.mu.Unlock()
		h.abandon(s, epoch)
		if superseded {
			return end(wire.CloseTakenOver, ErrTakenOver)
		}
		return refuse(quicflowv1.RefusalCode_REFUSAL_CODE_DRAINING, 0, ErrDraining, "the hub is stopping")
	}
	last, known := h.ends[s.id]
	delete(h.ends, s.id)
	s.accepted, s.epoch = true, epoch
	// Queued within the lock: no request may come before it.
	frame := &quicflowv1.ToAgent{Body: &quicflowv1.ToAgent_Welcome{Welcome: &quicflowv1.Welcome{
		ClientId:            s.id,
		NodeId:              h.cfg.NodeID,
		SessionEpoch:        epoch,
		HeartbeatIntervalMs: h.cfg.HeartbeatInterval.Milliseconds(),
		WantFacts:           entry.WantFacts,
	}}}
	err := s.out.Send(frame, maxOutbox)
	h.mu.Unlock()
	s.sent(frame, err) // on an error it ended already; its reader finds out and takes it off the books
	h.watchers.notify(s.id)
	h.metrics.connections.Inc()
	if s.conn.ConnectionState().TLS.DidResume {
		h.metrics.resumed.Inc()
	}
	e := s.event()
	h.log.Info("agent connected", "client_id", s.id, "addr", e.Address, "epoch", epoch)
	call(h.cfg.Hooks.OnConnect, e)
	if known && !last.goodbye && now.Before(last.at.Add(h.cfg.OfflineGrace)) {
		call(h.cfg.Hooks.OnReconnect, e)
	}
	return nil
}

// reject tells an agent why its session is not accepted, and closes the connection once it had time to read that.
func (h *Hub) reject(conn *quic.Conn, stream *quic.Stream, clientID string, err error) error {
	h.metrics.refuse(reasonOf(err))
	level := h.log.Warn
	if reasonOf(err) == reasonOverloaded {
		level = h.log.Debug // there are many, and the metric counts them
	}
	level("agent refused", "client_id", clientID, "addr", conn.RemoteAddr().String(), "reason", err, "cause", errors.Unwrap(err))
	call2(h.cfg.Hooks.OnRefused, Event{ClientID: clientID, Address: conn.RemoteAddr().String(), At: h.cfg.Now()}, err)
	cause := end(wire.CloseRefused, err)
	var r *refusal
	if e := new(endError); errors.As(err, &e) {
		cause = e
	} else if errors.As(err, &r) && stream != nil {
		_ = stream.SetWriteDeadline(time.Now().Add(linger))
		frame := &quicflowv1.ToAgent{Body: &quicflowv1.ToAgent_Refusal{Refusal: &quicflowv1.Refusal{
			Code: r.code, Message: r.message, RetryAfterMs: r.retryAfter.Milliseconds()}}}
		if wire.WriteFrame(h.metrics.writer(stream), frame) == nil && stream.Close() == nil {
			h.awaitClose(conn)
		}
	}
	closeConn(conn, cause)
	return err
}

// awaitClose gives the peer time to read the last frame: closing a connection drops what is still on its way.
func (h *Hub) awaitClose(conn *quic.Conn) {
	timer := time.NewTimer(linger)
	defer timer.Stop()
	select {
	case <-conn.Context().Done():
	case <-timer.C:
	case <-h.accepting.Done():
	}
}

// text makes what an agent says fit for every database: PostgreSQL takes neither NUL nor invalid UTF-8 in a text.
func text(s string) string { return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "\uFFFD") }

func labels(m map[string]string) map[string]string {
	clean := make(map[string]string, len(m))
	for k, v := range m {
		clean[text(k)] = text(v)
	}
	return clean
}
