package agent

import (
	"errors"
	"time"

	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// maxStrikes is how many answers in a row may be missing.
const maxStrikes = 3

// minSilence keeps short intervals from ending sessions on a host that is only busy.
const minSilence = 5 * time.Second

// heartbeat sends a heartbeat each interval. While one is not answered, it sends more at a third of the interval: a hub
// that is gone is noticed within two intervals, and one that is there needs no more traffic.
type heartbeat struct {
	s       *session
	ticker  *time.Ticker
	ticks   int
	strikes int
}

const ticksPerInterval = 3

func newHeartbeat(s *session) *heartbeat {
	return &heartbeat{s: s, ticker: time.NewTicker(max(s.interval/ticksPerInterval, time.Millisecond))}
}

func (h *heartbeat) tick() <-chan time.Time { return h.ticker.C }

func (h *heartbeat) stop() { h.ticker.Stop() }

// due sends a heartbeat if its time has come. The error is errSilent if the hub has to be given up.
func (h *heartbeat) due() error {
	h.ticks++
	unanswered := h.s.acked.Load() < h.s.sequence.Load()
	if unanswered {
		h.strikes++
	} else {
		h.strikes = 0
	}
	if h.strikes >= maxStrikes && time.Since(time.Unix(0, h.s.heard.Load())) > minSilence {
		return errSilent
	}
	if !unanswered && h.ticks%ticksPerInterval != 0 {
		return nil
	}
	return h.send()
}

// send sends a heartbeat whose time may not have come.
func (h *heartbeat) send() error {
	// A number that large makes a packet that a hub which has restarted answers with a stateless reset (quic-go does so
	// above 42 bytes), so that the agent knows at once.
	sequence := max(h.s.sequence.Load()+1, uint64(time.Now().UnixNano()))
	h.s.sequence.Store(sequence)
	err := h.s.send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Heartbeat{Heartbeat: &quicflowv1.Heartbeat{Sequence: sequence}}})
	if errors.Is(err, wire.ErrOutboxFull) {
		return nil // it counts as unanswered
	}
	return err
}
