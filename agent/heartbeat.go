package agent

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

const (
	// TicksPerInterval is how often a Pulse wants its tick.
	TicksPerInterval = 3
	// maxStrikes is how many answers in a row may be missing.
	maxStrikes = 3
	// askEvery heartbeats one wants an answer of the hub itself.
	askEvery = 8
	// minSilence keeps short intervals from ending sessions on a host that is only busy.
	minSilence = 5 * time.Second
)

// Pulse decides when an agent sends a heartbeat, and when its hub has to be given up. It is not safe for concurrent use.
//
// There is a heartbeat each interval. Most are quiet: that QUIC acknowledges them says that the hub is there, and costs it two packets
// instead of three and no work besides. Now and then one wants an answer, which says that the hub has not only a network. While a
// heartbeat is neither answered nor acknowledged, those that want an answer follow at a third of the interval: a hub that is gone is noticed
// within two intervals, and one that is there needs no more traffic.
type Pulse struct {
	ticks, strikes, quiet int
	sequence              uint64    // of the last heartbeat
	asked                 uint64    // of the last that wants an answer
	listening             bool      // for a packet, since a quiet one
	packets               uint64    // received when that left
	well                  time.Time // when nothing was missing
}

// NewPulse gives one whose first heartbeat comes phase ticks before a whole interval is over.
func NewPulse(phase int) Pulse {
	return Pulse{ticks: phase, quiet: rand.N(askEvery)} // agents that came together do not ask together
}

// Tick is to be called each third of the interval. acked is the sequence of the last answer, heard when the last frame came, packets how
// many QUIC has received on the connection. It gives the heartbeat to send now, if any. gone says that the hub has to be given up.
func (p *Pulse) Tick(now time.Time, acked uint64, heard time.Time, packets uint64) (beat *quicflowv1.Heartbeat, gone bool) {
	p.ticks++
	missing := acked < p.asked || p.listening && packets == p.packets
	if missing {
		p.strikes++
	} else {
		p.strikes, p.well = 0, now
	}
	if heard.After(p.well) {
		p.well = heard
	}
	switch {
	case p.strikes >= maxStrikes && now.Sub(p.well) > minSilence:
		return nil, true
	case missing:
		return p.Ask(now), false
	case p.ticks%TicksPerInterval != 0:
		return nil, false
	}
	if p.quiet++; p.quiet >= askEvery {
		p.quiet = 0
		return p.Ask(now), false
	}
	p.listening, p.packets = true, packets
	return &quicflowv1.Heartbeat{Sequence: p.next(now), Quiet: true}, false
}

// Ask gives a heartbeat whose time may not have come, and that wants an answer.
func (p *Pulse) Ask(now time.Time) *quicflowv1.Heartbeat {
	p.listening = false
	p.asked = p.next(now)
	return &quicflowv1.Heartbeat{Sequence: p.asked}
}

// next gives a number that is the time in unix ns. One that large makes a packet that a hub which has restarted answers with a stateless
// reset (quic-go does so above 42 bytes), so that the agent knows at once.
func (p *Pulse) next(now time.Time) uint64 {
	p.sequence = max(p.sequence+1, uint64(now.UnixNano()))
	return p.sequence
}

// heartbeat is the Pulse of a session.
type heartbeat struct {
	s     *session
	pulse Pulse
}

// due sends a heartbeat if its time has come. The error is errSilent if the hub has to be given up.
func (h *heartbeat) due() error {
	beat, gone := h.pulse.Tick(time.Now(), h.s.acked.Load(), time.Unix(0, h.s.heard.Load()), h.s.conn.ConnectionStats().PacketsReceived)
	switch {
	case gone:
		return errSilent
	case beat == nil:
		return nil
	}
	return h.send(beat)
}

// ask sends a heartbeat whose time may not have come.
func (h *heartbeat) ask() error { return h.send(h.pulse.Ask(time.Now())) }

func (h *heartbeat) send(beat *quicflowv1.Heartbeat) error {
	err := h.s.send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Heartbeat{Heartbeat: beat}})
	if errors.Is(err, wire.ErrOutboxFull) {
		return nil // it counts as unanswered
	}
	return err
}
