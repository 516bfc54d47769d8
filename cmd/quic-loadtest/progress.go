package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/quicflow/quicflow/internal/fleet"
)

// redraw is how often a line on a terminal is rewritten.
const redraw = 500 * time.Millisecond

// progress says how it goes: on a terminal in one line that is rewritten, else in a line each report interval.
type progress struct {
	w    io.Writer
	live bool
	line func() string
	end  chan struct{}
	done sync.WaitGroup
}

func (o *options) progress(line func() string) *progress {
	p := &progress{w: o.err, line: line, end: make(chan struct{})}
	every := time.Duration(o.report)
	if f, ok := o.err.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.live, every = true, min(every, redraw)
	}
	p.done.Go(func() { p.run(every) })
	return p
}

func (p *progress) run(every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if p.live {
				fmt.Fprint(p.w, "\r\x1b[K"+p.line())
			} else {
				fmt.Fprintln(p.w, p.line())
			}
		case <-p.end:
			if p.live {
				fmt.Fprint(p.w, "\r\x1b[K")
			}
			return
		}
	}
}

func (p *progress) stop() {
	close(p.end)
	p.done.Wait()
}

// liveLine tells of a fleet, with the rate since the line before.
func liveLine(f *fleet.Fleet, started time.Time) func() string {
	sessions, at := 0, started
	return func() string {
		s, now := f.Snapshot(), time.Now()
		rate := float64(s.Sessions-sessions) / now.Sub(at).Seconds()
		sessions, at = s.Sessions, now
		text := fmt.Sprintf("%5s  accepted %d/%d  %.0f/s  failed %d  dropped %d", now.Sub(started).Round(time.Second), s.Accepted, s.Agents, rate,
			total(s.Failed), s.DroppedTotal())
		if n := total(s.Attempts); n > 0 {
			text += fmt.Sprintf("  attempts in vain %d", n)
		}
		if s.RoundTrip.Count > 0 {
			text += fmt.Sprintf("  heartbeat p99 %s", short(s.RoundTrip.P99))
		}
		if s.Steps > 0 {
			text += fmt.Sprintf("  steps %d", s.Steps)
		}
		if rss, _ := memory(); rss > 0 {
			text += fmt.Sprintf("  RSS %d MiB", rss>>20)
		}
		return text
	}
}

// memory gives the resident memory of this process, and the most it ever was; 0 where the system does not say.
func memory() (now, peak int64) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, 0
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		kib, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "VmRSS:":
			now = kib << 10
		case "VmHWM:":
			peak = kib << 10
		}
	}
	return now, peak
}
