package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/quicflow/quicflow/internal/apiclient"
	"github.com/quicflow/quicflow/internal/release"
)

// progressLine says in one line where a task is:
//
//	canary 2/2 ✓  soak 4s left   5/10 done · 0 failed · 1 offline
func progressLine(t apiclient.Task, now time.Time) string {
	parts := []string{}
	for _, w := range t.Waves {
		if w.Number > t.Wave && done(t) <= before(t, w) {
			continue // not begun
		}
		in := min(max(done(t)-before(t, w), 0), w.Size)
		name := fmt.Sprintf("wave %d: ", w.Number)
		if w.Canary {
			name = "canary "
		}
		mark := ""
		if in == w.Size {
			mark = " ✓"
		}
		parts = append(parts, fmt.Sprintf("%s%d/%d%s", name, in, w.Size, mark))
	}
	if len(parts) > 3 { // the earlier waves are done
		parts = append(parts[:1], parts[len(parts)-2:]...)
	}
	if note := note(t, now); note != "" {
		parts = append(parts, note)
	}
	return strings.Join(parts, "  ") + "   " + countsLine(t)
}

// note says what the task is waiting for, or doing besides its waves.
func note(t apiclient.Task, now time.Time) string {
	switch status := release.Status(t.Status); status {
	case release.StatusRunning:
		switch release.Phase(t.Phase) {
		case release.PhaseSoak:
			if !t.SoakUntil.IsZero() {
				return "soak " + roundUp(t.SoakUntil.Sub(now)) + " left"
			}
			return "soak"
		case release.PhasePromotion:
			return "waiting to be promoted: quic-ctl task promote " + t.ID
		}
		return ""
	case release.StatusRollingBack:
		touched := t.Counts.RolledBack + t.Counts.RollbackFailed
		return fmt.Sprintf("rolling back: %d back", touched)
	default:
		if status.Terminal() {
			return "" // told by the outcome
		}
		return status.Describe()
	}
}

// roundUp gives whole seconds, so that a countdown does not say 0s while there is some time left.
func roundUp(d time.Duration) string {
	if d < 0 {
		return "0s"
	}
	return (d + time.Second - 1).Truncate(time.Second).String()
}

func countsLine(t apiclient.Task) string {
	n := t.Counts
	parts := []string{fmt.Sprintf("%d/%d done", n.Succeeded, n.Total), fmt.Sprintf("%d failed", n.Failed)}
	for _, more := range []struct {
		n    int64
		name string
	}{
		{n.Unknown, "unknown"}, {n.Offline, "offline"}, {n.Cancelled, "cancelled"}, {n.Skipped, "skipped"},
		{n.RolledBack, "rolled back"}, {n.RollbackFailed, "not rolled back"}, {n.Running, "running"},
	} {
		if more.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", more.n, more.name))
		}
	}
	return strings.Join(parts, " · ")
}

// bar draws a share of a whole.
func bar(done, total int64, width int) string {
	if total <= 0 {
		return ""
	}
	full := int(min(done, total) * int64(width) / total)
	return strings.Repeat("█", full) + strings.Repeat("░", width-full)
}

// done counts the hosts that the task has been through with.
func done(t apiclient.Task) int64 {
	n := t.Counts
	return n.Total - n.Pending - n.Running - n.Skipped
}

// before counts the hosts of earlier waves.
func before(t apiclient.Task, wave apiclient.Wave) (n int64) {
	for _, w := range t.Waves {
		if w.Number < wave.Number {
			n += w.Size
		}
	}
	return n
}
