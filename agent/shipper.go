package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

const (
	// logWindow is how much log may be on its way, not acknowledged, so that an agent fills no hub whose store is slow.
	logWindow = 256 << 10
	// frameOverhead is about what a frame takes beside its data: the id of the step, and numbers.
	frameOverhead = 128
	// logTurn is how much of one step's log is sent before the next step's turn comes.
	logTurn = 64 << 10
	// logKeep is how long a stream stays open at most: when credit is scarce, it goes round.
	logKeep = time.Minute
	// logStall is how long the hub may take to acknowledge something before all of it is sent again.
	logStall = 15 * time.Second
)

// shipper sends the spools of a session's steps, each from where the hub has it.
type shipper struct {
	s        *session
	sent     map[string]uint64 // by step, in this session
	stream   *quic.SendStream  // nil when idle
	buffer   *bufio.Writer
	frame    []byte // the one that is written
	openedAt time.Time
	lastSent time.Time

	// Credit is counted by streams: the nth grant of a session is for its nth stream.
	credit  uint64 // what is left to the stream that is open
	low     uint64 // below so much of it the next grant is asked for
	next    uint64 // granted to the stream after it; 0: nothing is
	offered bool   // an offer is not answered
	asked   uint64 // what the last offer asked for
	starved bool   // there is something to send and no credit

	confirmed   uint64 // sum of the acknowledged positions, to see progress
	lastAckedAt time.Time
}

func newShipper(s *session) *shipper {
	return &shipper{s: s, sent: map[string]uint64{}, lastAckedAt: time.Now()}
}

// shipment is a step whose log is not known to be complete at the hub.
type shipment struct {
	id       string
	acked    uint64
	finished bool
	end      uint64
}

// shipments lists them in a stable order.
func (s *steps) shipments() []shipment {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []shipment
	for _, id := range slices.Sorted(maps.Keys(s.entries)) {
		if e := s.entries[id]; !e.finished || e.logAcked < e.logEnd {
			list = append(list, shipment{id, e.logAcked, e.finished, e.logEnd})
		}
	}
	return list
}

func (p *shipper) run(ctx context.Context) error {
	idle := p.s.agent.cfg.LogIdle
	timer := time.NewTimer(idle)
	defer timer.Stop()
	for {
		progress, inFlight, done, err := p.turn(ctx)
		if err != nil {
			return fmt.Errorf("send logs: %w", err)
		}
		if done || time.Since(p.lastSent) >= idle {
			err = p.giveBack(ctx)
		} else if time.Since(p.openedAt) >= logKeep {
			err = p.end()
		}
		if err != nil {
			return fmt.Errorf("give back credit for logs: %w", err)
		}
		if progress {
			continue
		}
		wait := time.Hour
		if p.stream != nil || p.next > 0 {
			wait = time.Until(p.lastSent.Add(idle))
		}
		if inFlight {
			wait = min(wait, time.Until(p.lastAckedAt.Add(logStall)))
		}
		timer.Reset(max(wait, time.Millisecond))
		select {
		case <-p.s.agent.steps.logsReady:
		case credit := <-p.s.credits:
			if !p.offered {
				return errUnaskedCredit
			}
			if credit == 0 {
				return errors.New("the hub granted credit of 0 bytes for logs")
			}
			p.next, p.offered, p.starved, p.lastSent = credit, false, false, time.Now()
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// turn gives each step its turn. It reports whether anything was sent, whether anything is not acknowledged, and whether all
// steps have ended and their logs are sent.
func (p *shipper) turn(ctx context.Context) (progress, inFlight, done bool, err error) {
	shipments := p.s.agent.steps.shipments()
	var flying, confirmed uint64
	for _, m := range shipments {
		confirmed += m.acked
		if sent := p.sent[m.id]; sent > m.acked {
			flying += sent - m.acked
		}
	}
	if confirmed != p.confirmed || flying == 0 {
		p.confirmed, p.lastAckedAt = confirmed, time.Now()
	} else if time.Since(p.lastAckedAt) >= logStall {
		p.s.agent.cfg.Logger.Warn("hub does not acknowledge logs, sending them again", "bytes", flying)
		clear(p.sent)
		flying, p.lastAckedAt = 0, time.Now()
	}
	for _, m := range shipments {
		if flying >= logWindow || p.starved {
			break
		}
		n, err := p.ship(ctx, m, min(logTurn, logWindow-int(flying)))
		if err != nil {
			return false, false, false, err
		}
		flying += n
		progress = progress || n > 0
	}
	done = true
	for _, m := range shipments {
		done = done && m.finished && max(m.acked, p.sent[m.id]) >= m.end
	}
	if progress {
		if p.stream != nil {
			if err := p.buffer.Flush(); err != nil {
				return false, false, false, err
			}
		}
		p.lastSent = time.Now()
	}
	if len(p.sent) > 2*len(shipments)+100 {
		p.prune(shipments)
	}
	return progress, flying > 0, done, nil
}

// ship sends the next records of one step, of up to limit bytes, but at least one if there is one.
func (p *shipper) ship(ctx context.Context, m shipment, limit int) (sent uint64, err error) {
	position := max(m.acked, p.sent[m.id])
	if m.finished && position >= m.end {
		return 0, nil
	}
	reader := spool.NewReader(p.s.agent.steps.spoolPath(m.id), position)
	defer reader.Close()
	records, err := reader.Next(limit)
	if err != nil && !(errors.Is(err, spool.ErrCorrupt) && !m.finished) {
		// What was cut off by a crash is dropped when the step ends. Anything else is lost, and must not stop the rest.
		p.s.agent.cfg.Logger.Error("spool cannot be read", "step_id", m.id, "error", err)
	}
	waiting := uint64(0)
	for _, r := range records {
		waiting += uint64(len(r.Data)) + frameOverhead
	}
	for _, r := range records {
		ok, err := p.write(ctx, m.id, r, waiting)
		if err != nil || !ok {
			return sent, err
		}
		sent += r.Next - r.Position
		waiting -= uint64(len(r.Data)) + frameOverhead
		p.sent[m.id] = r.Next
	}
	return sent, nil
}

// write sends a record, if there is credit for it. waiting is about how much there is to send, in bytes of frames.
func (p *shipper) write(ctx context.Context, id string, r spool.Record, waiting uint64) (ok bool, err error) {
	p.frame, err = wire.AppendFrame(p.frame[:0], &quicflowv1.LogChunk{
		StepId: id, Position: r.Position, Next: r.Next,
		Stream: r.Stream, Offset: r.Offset, TimeUnixNano: r.Time.UnixNano(), Data: r.Data,
	})
	if err != nil {
		return false, err
	}
	size := uint64(len(p.frame))
	waiting = max(waiting, size)
	for size > p.credit {
		// The rest is too small. It is given back at once, or agents that wait could keep all credit of a hub from each other.
		if err := p.end(); err != nil {
			return false, err
		}
		if p.next == 0 {
			p.starved = true
			p.offer(waiting)
			return false, nil
		}
		if err := p.open(ctx); err != nil {
			return false, err
		}
		if size > p.credit && p.asked >= size {
			return false, fmt.Errorf("the hub granted %d bytes for logs where %d were asked for", p.credit, p.asked)
		}
	}
	if p.credit < p.low && p.next == 0 {
		p.offer(waiting) // so that it is granted before the rest is used up
	}
	p.credit -= size
	_, err = p.buffer.Write(p.frame)
	return err == nil, err
}

// offer asks for credit, unless that was done.
func (p *shipper) offer(waiting uint64) {
	if !p.offered {
		p.asked = waiting
		p.offered = p.s.send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_LogOffer{LogOffer: &quicflowv1.LogOffer{Bytes: waiting}}}) == nil
	}
}

// open opens the stream that the next grant is for.
func (p *shipper) open(ctx context.Context) error {
	stream, err := p.s.conn.OpenUniStreamSync(ctx)
	if err != nil {
		return err
	}
	p.stream, p.buffer = stream, bufio.NewWriterSize(stream, 8<<10)
	p.credit, p.low, p.next = p.next, p.next/2, 0
	p.openedAt = time.Now()
	return nil
}

// end closes the stream, which gives back what is left of its credit.
func (p *shipper) end() error {
	if p.stream == nil {
		return nil
	}
	if err := p.buffer.Flush(); err != nil {
		return err
	}
	err := p.stream.Close()
	p.stream, p.buffer, p.credit = nil, nil, 0
	return err
}

// giveBack ends the stream, if there is one, and the one after it if that has credit.
func (p *shipper) giveBack(ctx context.Context) error {
	if err := p.end(); err != nil || p.next == 0 {
		return err
	}
	if err := p.open(ctx); err != nil {
		return err
	}
	return p.end()
}

// prune forgets steps that are done.
func (p *shipper) prune(shipments []shipment) {
	kept := make(map[string]uint64, len(shipments))
	for _, m := range shipments {
		if n, ok := p.sent[m.id]; ok {
			kept[m.id] = n
		}
	}
	p.sent = kept
}
