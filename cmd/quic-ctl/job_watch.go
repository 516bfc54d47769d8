package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/quicflow/quicflow/internal/apiclient"
	"github.com/quicflow/quicflow/internal/job"
)

// flagValue gives the value of a flag as JSON has it.
func flagValue(v pflag.Value) any {
	switch v.Type() {
	case "bool":
		return v.String() == "true"
	case "int":
		n, _ := strconv.Atoi(v.String()) // pflag has read it as one
		return n
	}
	return v.String()
}

// watchJob shows a job until it has ended, with the output of its hosts where stream says so. What it returns makes the exit
// code tell the outcome.
func (c *cli) watchJob(ctx context.Context, api *apiclient.API, id string, stream bool) error {
	view := newProgressView(c)
	printer := &resultPrinter{c: c, jobID: id}
	follower := &apiclient.JobFollower{API: api, JobID: id, NoResults: !stream, Lost: lost(view.say), Resumed: func() { view.say("connected again") }}
	for event, err := range follower.Events(ctx) {
		switch {
		case ctx.Err() != nil:
			view.end()
			fmt.Fprintf(c.err, "The job goes on. Watch it again with: quic-ctl batch watch %s\nStop it with: quic-ctl batch cancel %s\n", id, id)
			return exitWith{exitInterrupted}
		case err != nil:
			view.end()
			return err
		case event.Result != nil:
			view.clear()
			printer.print(*event.Result)
		case event.Progress != nil:
			p := event.Progress
			view.show(jobLine(*p), p.Status, fmt.Sprint(p.Counts), p.Counts.Total-p.Counts.Pending-p.Counts.Running, p.Counts.Total, time.Now())
		case event.Complete != nil:
			view.end()
			if stream && c.json() {
				if err := c.encodeJSON(event.Complete, ""); err != nil {
					return err
				}
			}
		}
	}
	return c.jobOutcome(ctx, api, id, stream)
}

// jobLine says in one line where a job is.
func jobLine(p apiclient.JobProgressEvent) string {
	words := ""
	switch job.Status(p.Status) {
	case job.StatusPaused:
		words = "paused; nothing new starts   "
	case job.StatusCancelling:
		words = "being stopped   "
	}
	return words + jobCounts(p.Counts)
}

func jobCounts(n apiclient.JobCounts) string {
	parts := []string{fmt.Sprintf("%d/%d done", n.Succeeded, n.Total), fmt.Sprintf("%d failed", n.Failed)}
	for _, more := range []struct {
		n    int64
		name string
	}{
		{n.Timeout, "timed out"}, {n.Refused, "refused"}, {n.Unknown, "unknown"}, {n.Offline, "offline"},
		{n.Cancelled, "cancelled"}, {n.Skipped, "skipped"}, {n.Running, "running"},
	} {
		if more.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", more.n, more.name))
		}
	}
	return strings.Join(parts, " · ")
}

// jobOutcome says how a job ended, with its failures grouped, and gives the exit code.
func (c *cli) jobOutcome(ctx context.Context, api *apiclient.API, id string, streamed bool) error {
	j, err := apiclient.Read[apiclient.BatchJob](api.GetBatchJob(ctx, id))
	if err != nil {
		return err
	}
	mark, color, code := "✗", bad, exitTaskFailed
	switch job.Status(j.Status) {
	case job.StatusCompleted:
		mark, color, code = "✓", good, exitOK
	case job.StatusPartial:
		mark, color, code = "!", caution, exitTaskPartial
	}
	switch {
	case c.json() && streamed: // told by the events
	case c.json():
		if err := c.writeJSON(j); err != nil {
			return err
		}
	default:
		fmt.Fprintf(c.out, "%s   %s · took %s\n", c.paint(c.out, color, mark+" "+string(j.Status)), jobCounts(j.Counts), took(j.CreatedAt, j.FinishedAt))
		if j.Reason != "" {
			fmt.Fprintln(c.out, "  "+printable(j.Reason))
		}
		grouped := failureGroups{}
		for _, state := range []job.State{job.StateFailed, job.StateTimeout, job.StateRefused, job.StateUnknown, job.StateOffline} {
			found, err := jobTargets(ctx, api, id, string(state))
			if err != nil {
				return err
			}
			for _, t := range found {
				grouped.add(string(t.State), t.Error, t.ClientID)
			}
		}
		grouped.print(c)
		if code != exitOK {
			fmt.Fprintf(c.err, "See the hosts with: quic-ctl batch targets %s\nTry again where it did not succeed with: quic-ctl batch retry %s\n", id, id)
		}
	}
	if code != exitOK {
		return exitWith{code}
	}
	return nil
}

// resultPrinter prints what hosts gave, each line after the name of its host.
type resultPrinter struct {
	c     *cli
	jobID string
	width int
}

func (p *resultPrinter) print(r apiclient.JobResultEvent) {
	if p.c.json() {
		_ = p.c.encodeJSON(r, "")
		return
	}
	p.width = max(p.width, len(r.ClientID))
	output, printed := r.Output, false
	if hasOutput(r.Result) {
		_ = json.Unmarshal(r.Result, &output) // a host's output that is none is shown as none
	} else if len(r.Result) > 0 && output.StdoutBytes+output.StderrBytes == 0 {
		printed = p.lines(r.ClientID, "", string(r.Result))
	}
	printed = p.lines(r.ClientID, "", output.Stdout) || printed
	printed = p.lines(r.ClientID, caution, output.Stderr) || printed
	if output.StdoutTruncated || output.StderrTruncated {
		p.line(r.ClientID, faint, fmt.Sprintf("… cut; all of it: quic-ctl batch logs %s --client %s", p.jobID, r.ClientID))
	}
	switch {
	case job.State(r.Outcome) != job.StateSucceeded:
		why := ""
		if r.Error != "" && r.Error != string(r.Outcome) {
			why = ": " + r.Error
		}
		p.line(r.ClientID, bad, "✗ "+string(r.Outcome)+why)
	case !printed:
		p.line(r.ClientID, good, "✓")
	}
}

// hasOutput tells the result of exec_shell from those of other commands.
func hasOutput(result json.RawMessage) bool {
	var keys map[string]json.RawMessage
	if json.Unmarshal(result, &keys) != nil {
		return false
	}
	_, stdout := keys["stdout"]
	_, cut := keys["stdout_truncated"]
	return stdout && cut
}

func (p *resultPrinter) lines(host, color, text string) bool {
	text = strings.TrimSuffix(text, "\n")
	if text == "" {
		return false
	}
	for line := range strings.SplitSeq(text, "\n") {
		p.line(host, color, strings.TrimSuffix(line, "\r"))
	}
	return true
}

func (p *resultPrinter) line(host, color, text string) {
	if isTerminal(p.c.out) {
		text = printable(text)
	}
	fmt.Fprintf(p.c.out, "%s %s\n", p.c.paint(p.c.out, faint, fmt.Sprintf("%-*s │", p.width, host)), p.c.paint(p.c.out, color, text))
}
