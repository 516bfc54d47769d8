package agent_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent"
)

// pulse is a Pulse on a clock of its own. Packets come where the test says so.
type pulse struct {
	t       *testing.T
	p       agent.Pulse
	now     time.Time
	acked   uint64
	heard   time.Time
	packets uint64
}

const third = 5 * time.Second

func newPulse(t *testing.T, phase int) *pulse {
	now := time.Unix(1_700_000_000, 0)
	return &pulse{t: t, p: agent.NewPulse(phase), now: now, heard: now}
}

// tick gives the heartbeat of the next third of an interval: "", quiet, ask or gone. Its number is kept for answer.
func (p *pulse) tick() (what string, number uint64) {
	p.now = p.now.Add(third)
	beat, gone := p.p.Tick(p.now, p.acked, p.heard, p.packets)
	switch {
	case gone:
		require.Nil(p.t, beat)
		return "gone", 0
	case beat == nil:
		return "", 0
	case beat.Quiet:
		return "quiet", beat.Sequence
	}
	return "ask", beat.Sequence
}

func (p *pulse) expect(wants ...string) (number uint64) {
	p.t.Helper()
	for i, want := range wants {
		var got string
		got, number = p.tick()
		require.Equal(p.t, want, got, "tick %d", i)
	}
	return number
}

// quiet ticks until a quiet heartbeat is out, which may take one that asks.
func (p *pulse) quiet() {
	p.t.Helper()
	for range 2 * agent.TicksPerInterval {
		p.packets++
		what, number := p.tick()
		switch what {
		case "quiet":
			return
		case "ask":
			p.acked = number
		}
	}
	require.FailNow(p.t, "no quiet heartbeat")
}

// While QUIC acknowledges them, one heartbeat in eight wants an answer; each comes an interval after the one before.
func TestHeartbeatsAreQuiet(t *testing.T) {
	p := newPulse(t, 2)
	asked, last := 0, uint64(0)
	for beat := range 80 {
		p.packets += 2
		what, number := p.tick()
		require.NotEmpty(t, what, "beat %d", beat)
		require.Greater(t, number, last)
		last = number
		if what == "ask" {
			asked++
			p.acked = number
		}
		p.packets++
		p.expect("", "")
	}
	require.Equal(t, 10, asked)
}

// A quiet heartbeat that nothing follows is asked about at once, and then each third of an interval, until the hub is given up.
func TestSilenceAfterAQuietHeartbeat(t *testing.T) {
	p := newPulse(t, 0)
	p.quiet()
	p.expect("ask", "ask", "gone")

	p = newPulse(t, 0)
	p.quiet()
	number := p.expect("ask", "ask")
	p.acked, p.packets = number, p.packets+1
	p.quiet() // it was there after all: two strikes are forgotten
	p.expect("ask", "ask", "gone")
}

// A hub that only acknowledges packets, and does not answer, is gone too; one that says anything else is only slow.
func TestAcknowledgedButNotAnswered(t *testing.T) {
	p := newPulse(t, 0)
	p.quiet()
	p.expect("ask")
	p.packets += 5
	p.expect("ask")
	p.packets += 5
	p.expect("gone")

	p = newPulse(t, 0)
	p.quiet()
	for range 20 {
		p.heard = p.now.Add(third)
		p.expect("ask")
	}
}

// A heartbeat out of turn wants an answer.
func TestHeartbeatOutOfTurn(t *testing.T) {
	p := newPulse(t, 0)
	beat := p.p.Ask(p.now)
	require.False(t, beat.Quiet)
	p.expect("ask")
	p.acked = beat.Sequence + uint64(time.Hour)
	p.expect("")
}
