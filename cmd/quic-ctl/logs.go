package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quicflow/quicflow/internal/apiclient"
)

func (c *cli) logs() *cobra.Command {
	cmd := c.logsCommand(logsOfTask)
	cmd.Use, cmd.Short = "logs TASK", "Show what the hosts of a task wrote"
	cmd.Long = "Show what the hosts of a task wrote. With -o json, one piece of output a line."
	cmd.Example = "  quic-ctl logs -f TASK\n  quic-ctl logs TASK --client web-1"
	return cmd
}

// logSource is where a log is read: that of a task, or of a job.
type logSource struct {
	page func(ctx context.Context, api *apiclient.API, id string, after int64, client string) (apiclient.LogPage, error)
	// follow prepares a follower for an id that it has found to exist.
	follow func(ctx context.Context, api *apiclient.API, id string) (*apiclient.Follower, error)
}

var logsOfTask = logSource{
	page: func(ctx context.Context, api *apiclient.API, id string, after int64, client string) (apiclient.LogPage, error) {
		return apiclient.Read[apiclient.LogPage](api.TaskLogs(ctx, id, &apiclient.TaskLogsParams{
			After: &after, Limit: new(int64(pageSize)), Client: apiclient.Optional(client),
		}))
	},
	follow: func(ctx context.Context, api *apiclient.API, id string) (*apiclient.Follower, error) {
		task, err := apiclient.Read[apiclient.Task](api.GetTask(ctx, id))
		return &apiclient.Follower{API: api, TaskID: task.ID}, err
	},
}

var logsOfJob = logSource{
	page: func(ctx context.Context, api *apiclient.API, id string, after int64, client string) (apiclient.LogPage, error) {
		return apiclient.Read[apiclient.LogPage](api.JobLogs(ctx, id, &apiclient.JobLogsParams{
			After: &after, Limit: new(int64(pageSize)), Client: apiclient.Optional(client),
		}))
	},
	follow: func(ctx context.Context, api *apiclient.API, id string) (*apiclient.Follower, error) {
		j, err := apiclient.Read[apiclient.BatchJob](api.GetBatchJob(ctx, id))
		return &apiclient.Follower{API: api, JobID: j.JobID}, err
	},
}

func (c *cli) logsCommand(source logSource) *cobra.Command {
	var follow bool
	var client string
	cmd := &cobra.Command{
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			printer := newLogPrinter(c)
			defer printer.flush()
			if !follow {
				return c.history(cmd.Context(), api, source, args[0], client, printer)
			}
			follower, err := source.follow(cmd.Context(), api, args[0])
			if err != nil {
				return err
			}
			follower.Client = client
			c.tellConnection(follower, func(text string) { fmt.Fprintln(c.err, text) })
			for event, err := range follower.Events(cmd.Context()) {
				switch {
				case err != nil:
					return err
				case event.Log != nil:
					printer.print(*event.Log)
				case event.Gap != nil:
					printer.flush()
					fmt.Fprintln(c.err, gapText(*event.Gap))
				case event.End != nil:
					printer.flush()
					c.warnMissing(*event.End)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new lines until the end")
	cmd.Flags().StringVar(&client, "client", "", "only of this agent")
	return cmd
}

// history prints what there is so far.
func (c *cli) history(ctx context.Context, api *apiclient.API, source logSource, id, client string, printer *logPrinter) error {
	after := int64(0)
	for {
		page, err := source.page(ctx, api, id, after, client)
		if err != nil {
			return err
		}
		for _, line := range page.Logs {
			printer.print(line)
			after = line.Seq
		}
		if len(page.Logs) < pageSize {
			return nil
		}
	}
}

// tellConnection makes a follower say when the connection comes and goes.
func (c *cli) tellConnection(f *apiclient.Follower, say func(string)) {
	f.Lost = lost(say)
	f.Resumed = func(after int64) { say(fmt.Sprintf("connected again, going on after line %d", after)) }
}

func lost(say func(string)) func(error) {
	return func(err error) { say("connection to the server lost, trying again: " + printable(err.Error())) }
}

func (c *cli) warnMissing(end apiclient.LogEnd) {
	if !end.LogsComplete {
		fmt.Fprintln(c.err, c.paint(c.err, caution, "! logs have not arrived in full from: "+strings.Join(end.Missing, ", ")))
	}
}

func gapText(g apiclient.LogGap) string {
	return fmt.Sprintf("… lines %d to %d are no longer kept …", g.From, g.To)
}

// maxLine is how much of a line is kept until its end comes.
const maxLine = 64 << 10

// logPrinter puts pieces of output together to lines, each after the name of its host.
type logPrinter struct {
	c     *cli
	parts map[string]string // beginnings of lines, by host and stream
	width int
}

func newLogPrinter(c *cli) *logPrinter { return &logPrinter{c: c, parts: map[string]string{}} }

func (p *logPrinter) print(line apiclient.LogLine) {
	if p.c.json() {
		_ = p.c.encodeJSON(line, "")
		return
	}
	text := line.Text
	if line.DataBase64 != "" {
		data, _ := base64.StdEncoding.DecodeString(line.DataBase64)
		text = string(data)
	}
	key := line.ClientID + "\x00" + string(line.Step) + "\x00" + string(line.Stream)
	text = p.parts[key] + text
	for {
		whole, rest, more := strings.Cut(text, "\n")
		if !more {
			break
		}
		p.line(line.ClientID, string(line.Stream), whole)
		text = rest
	}
	if len(text) > maxLine { // nobody waits for its end
		p.line(line.ClientID, string(line.Stream), text)
		text = ""
	}
	if text == "" {
		delete(p.parts, key)
		return
	}
	p.parts[key] = text
}

// flush prints the lines that have no end.
func (p *logPrinter) flush() {
	for key, text := range p.parts {
		parts := strings.Split(key, "\x00")
		p.line(parts[0], parts[2], text)
	}
	clear(p.parts)
}

func (p *logPrinter) line(client, stream, text string) {
	p.width = max(p.width, len(client))
	color := ""
	switch stream {
	case "stderr":
		color = caution
	case "system":
		color = faint
	}
	text = strings.TrimSuffix(strings.ToValidUTF8(text, "�"), "\r")
	if isTerminal(p.c.out) {
		text = printable(text)
	}
	fmt.Fprintf(p.c.out, "%s %s\n", p.c.paint(p.c.out, faint, fmt.Sprintf("%-*s │", p.width, client)), p.c.paint(p.c.out, color, text))
}
