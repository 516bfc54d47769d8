package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/quicflow/quicflow/internal/apiclient"
	"github.com/quicflow/quicflow/internal/release"
)

const (
	redrawEvery = 250 * time.Millisecond
	plainEvery  = 2 * time.Second // between two lines that differ only in their counts
	barWidth    = 20
)

// watching says what to show of a task besides its progress.
type watching struct {
	logs   bool
	client string
}

func (c *cli) taskWatch() *cobra.Command {
	var show watching
	cmd := &cobra.Command{
		Use: "watch TASK", Short: "Show the progress of a task until its end; the exit code tells the outcome", Args: cobra.ExactArgs(1),
		Example: "  quic-ctl task watch TASK --logs",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			task, err := apiclient.Read[apiclient.Task](api.GetTask(cmd.Context(), args[0]))
			if err != nil {
				return err
			}
			return c.watch(cmd.Context(), api, task, show)
		},
	}
	cmd.Flags().BoolVar(&show.logs, "logs", false, "live log lines, too")
	cmd.Flags().StringVar(&show.client, "client", "", "log lines of this agent only")
	return cmd
}

// watch shows a task until it has ended. What it returns makes the exit code tell the outcome.
func (c *cli) watch(ctx context.Context, api *apiclient.API, task apiclient.Task, show watching) error {
	view := newProgressView(c)
	printer := newLogPrinter(c)
	follower := &apiclient.Follower{API: api, TaskID: task.ID, Client: show.client}
	c.tellConnection(follower, view.say)

	type step struct {
		event apiclient.Event
		err   error
	}
	// Events come from a goroutine of its own, so that a countdown moves while there are none. It ends with ctx.
	ctx, cancel := context.WithCancel(ctx)
	steps := make(chan step)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		defer close(steps)
		for event, err := range follower.Events(ctx) {
			select {
			case steps <- step{event, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() { cancel(); <-finished }()

	tick := time.NewTicker(redrawEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			view.end()
			fmt.Fprintf(c.err, "The task goes on. Watch it again with: quic-ctl task watch %s\n", task.ID)
			return exitWith{exitInterrupted}
		case <-tick.C:
			view.draw(task)
		case s, more := <-steps:
			switch {
			case !more, s.event.End != nil:
				printer.flush()
				view.end()
				if s.event.End != nil && show.logs {
					c.warnMissing(*s.event.End)
				}
				return c.outcome(ctx, api, task.ID)
			case s.err != nil:
				view.end()
				return s.err
			case s.event.Task != nil:
				task = *s.event.Task
				view.draw(task)
			case s.event.Log != nil && show.logs:
				view.clear()
				printer.print(*s.event.Log)
			case s.event.Gap != nil && show.logs:
				view.say(gapText(*s.event.Gap))
			}
		}
	}
}

// progressView shows one line that moves on a terminal, else a line for each thing that happened.
type progressView struct {
	c     *cli
	live  bool
	shown bool   // the moving line is on the screen
	state string // what the last plain line was about
	text  string
	at    time.Time
}

func newProgressView(c *cli) *progressView {
	return &progressView{c: c, live: isTerminal(c.err) && os.Getenv("TERM") != "dumb" && !c.json()}
}

func (v *progressView) draw(t apiclient.Task) {
	now := time.Now()
	v.show(progressLine(t, now), fmt.Sprint(t.Status, t.Phase, t.Wave), fmt.Sprint(t.Counts), done(t), t.Counts.Total, now)
}

// show shows a line. Lines of the same state that differ in their counts only do not all make a plain line.
func (v *progressView) show(line, state, counts string, done, total int64, now time.Time) {
	if v.c.json() {
		return
	}
	if v.live {
		most := width(v.c.err) - 1
		if utf8.RuneCountInString(line)+barWidth < most {
			line = bar(done, total, barWidth) + " " + line
		}
		if runes := []rune(line); len(runes) > most {
			line = string(runes[:max(most-1, 0)]) + "…"
		}
		fmt.Fprint(v.c.err, "\r\x1b[K"+line)
		v.shown = true
		return
	}
	text := state + counts
	if state == v.state && (text == v.text || now.Sub(v.at) < plainEvery) {
		return
	}
	v.state, v.text, v.at = state, text, now
	fmt.Fprintln(v.c.err, line)
}

// clear makes room for another line; the next draw brings the moving one back.
func (v *progressView) clear() {
	if v.shown {
		fmt.Fprint(v.c.err, "\r\x1b[K")
		v.shown = false
	}
}

func (v *progressView) say(text string) {
	v.clear()
	fmt.Fprintln(v.c.err, text)
}

func (v *progressView) end() { v.clear() }

// outcome says how a task ended, with its failures grouped, and gives the exit code.
func (c *cli) outcome(ctx context.Context, api *apiclient.API, id string) error {
	task, err := apiclient.Read[apiclient.Task](api.GetTask(ctx, id))
	if err != nil {
		return err
	}
	status := release.Status(task.Status)
	mark, color, code := "✗", bad, exitTaskFailed
	switch status {
	case release.StatusSucceeded:
		mark, color, code = "✓", good, exitOK
	case release.StatusPartial:
		mark, color, code = "!", caution, exitTaskPartial
	}
	if c.json() {
		if err := c.writeJSON(task); err != nil {
			return err
		}
	} else {
		took := ""
		if !task.FinishedAt.IsZero() {
			took = " · took " + round(task.FinishedAt.Sub(task.CreatedAt))
		}
		fmt.Fprintf(c.out, "%s %s %s   %s%s\n", c.paint(c.out, color, mark+" "+strings.ReplaceAll(string(status), "_", " ")),
			task.Project, describe(task), countsLine(task), took)
		if task.Reason != "" {
			fmt.Fprintln(c.out, "  "+printable(task.Reason))
		}
		if err := c.failures(ctx, api, id); err != nil {
			return err
		}
	}
	if code != exitOK {
		return exitWith{code}
	}
	return nil
}

// failures shows the hosts on which something went wrong; those that say the same share a line.
func (c *cli) failures(ctx context.Context, api *apiclient.API, id string) error {
	grouped := failureGroups{}
	for _, state := range []release.TargetState{release.TargetFailed, release.TargetUnknown, release.TargetRollbackFailed, release.TargetOffline} {
		found, err := targets(ctx, api, id, string(state), -1)
		if err != nil {
			return err
		}
		for _, t := range found {
			grouped.add(string(t.State), t.Error, t.ClientID)
		}
	}
	grouped.print(c)
	return nil
}

// failureGroups are hosts by what went wrong on them, in the order in which that was found.
type failureGroups struct {
	order []failure
	hosts map[failure][]string
}

type failure struct{ state, why string }

func (g *failureGroups) add(state, why, host string) {
	if g.hosts == nil {
		g.hosts = map[failure][]string{}
	}
	f := failure{state, why}
	if g.hosts[f] == nil {
		g.order = append(g.order, f)
	}
	g.hosts[f] = append(g.hosts[f], host)
}

func (g *failureGroups) print(c *cli) {
	for _, f := range g.order {
		names := g.hosts[f]
		sample := strings.Join(names[:min(len(names), 3)], ", ")
		if len(names) > 3 {
			sample += ", …"
		}
		why := ""
		if f.why != "" && f.why != f.state {
			why = ": " + printable(f.why)
		}
		fmt.Fprintf(c.out, "  %d %s%s   %s\n", len(names), strings.ReplaceAll(f.state, "_", " "), why, c.paint(c.out, faint, sample))
	}
}
