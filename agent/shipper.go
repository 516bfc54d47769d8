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
	// logWindow is how much log may be on its way, not acknowledged: well below the window of the connection, so that
	// logs that the hub is slow to store do not hold up the control stream.
	logWindow = 256 << 10
	// logTurn is how much of one step's log is sent before the next step's turn comes.
	logTurn = 64 << 10
	// logIdle is how long the stream stays open without anything to send.
	logIdle = 10 * time.Second
	// logStall is how long the hub may take to acknowledge something before all of it is sent again.
	logStall = 15 * time.Second
)

// shipper sends the spools of a session's steps, each from where the hub has it.
type shipper struct {
	s        *session
	sent     map[string]uint64 // by step, in this session
	stream   *quic.SendStream  // nil when idle
	buffer   *bufio.Writer
	lastSent time.Time

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
	timer := time.NewTimer(logIdle)
	defer timer.Stop()
	defer p.close()
	for {
		progress, inFlight, err := p.turn(ctx)
		if err != nil {
			return fmt.Errorf("send logs: %w", err)
		}
		if progress {
			continue
		}
		wait := time.Hour
		if p.stream != nil {
			wait = time.Until(p.lastSent.Add(logIdle))
		}
		if inFlight {
			wait = min(wait, time.Until(p.lastAckedAt.Add(logStall)))
		}
		timer.Reset(max(wait, time.Millisecond))
		select {
		case <-p.s.agent.steps.logsReady:
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
		if p.stream != nil && time.Since(p.lastSent) >= logIdle {
			p.close()
		}
	}
}

// turn gives each step its turn. It reports whether anything was sent and whether anything is not acknowledged.
func (p *shipper) turn(ctx context.Context) (progress, inFlight bool, err error) {
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
		if flying >= logWindow {
			break
		}
		n, err := p.ship(ctx, m, min(logTurn, logWindow-int(flying)))
		if err != nil {
			return false, false, err
		}
		flying += n
		progress = progress || n > 0
	}
	if progress {
		if err := p.buffer.Flush(); err != nil {
			return false, false, err
		}
		p.lastSent = time.Now()
	}
	if len(p.sent) > 2*len(shipments)+100 {
		p.prune(shipments)
	}
	return progress, flying > 0, nil
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
	for _, r := range records {
		if err := p.write(ctx, m.id, r); err != nil {
			return 0, err
		}
		sent += r.Next - r.Position
		p.sent[m.id] = r.Next
	}
	return sent, nil
}

func (p *shipper) write(ctx context.Context, id string, r spool.Record) error {
	if p.stream == nil {
		stream, err := p.s.conn.OpenUniStreamSync(ctx)
		if err != nil {
			return err
		}
		p.stream, p.buffer = stream, bufio.NewWriterSize(stream, 8<<10)
	}
	return wire.WriteFrame(p.buffer, &quicflowv1.LogChunk{
		StepId: id, Position: r.Position, Next: r.Next,
		Stream: r.Stream, Offset: r.Offset, TimeUnixNano: r.Time.UnixNano(), Data: r.Data,
	})
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

func (p *shipper) close() {
	if p.stream != nil {
		_ = p.stream.Close()
		p.stream, p.buffer = nil, nil
	}
}
