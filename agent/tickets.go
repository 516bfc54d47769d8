package agent

import (
	"crypto/tls"
	"errors"
	"sync"

	"github.com/quic-go/quic-go"
)

// Tickets keeps the latest ticket of a hub, for a session that resumes. It is not like the cache of crypto/tls, which drops the ticket
// after every handshake that did not end well: a hub that is away, or too busy to answer, says nothing about the ticket, and when it is
// back all its agents would do the whole handshake, which takes it several times the work.
type Tickets struct {
	mu    sync.Mutex
	state *tls.ClientSessionState
}

var _ tls.ClientSessionCache = (*Tickets)(nil)

// Get gives the ticket. There is one, as all hubs have one name and one set of keys.
func (t *Tickets) Get(string) (*tls.ClientSessionState, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state, t.state != nil
}

// Put keeps a ticket. It does not drop one: see Tried.
func (t *Tickets) Put(_ string, state *tls.ClientSessionState) {
	if state == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.state = state
}

// Tried drops the ticket if TLS itself failed, on either side: it may be the ticket's fault. err is what a dial gave.
func (t *Tickets) Tried(err error) {
	if failed := (*quic.TransportError)(nil); errors.As(err, &failed) && failed.ErrorCode.IsCryptoError() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.state = nil
	}
}
