package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/quicflow/quicflow/internal/apiclient"
	"github.com/quicflow/quicflow/internal/job"
)

const commandExample = `  quic-ctl command web-1 -- ls -la
  quic-ctl command web-1 -- 'df -h | tail -n 1'
  quic-ctl command web-1 --type system.info
  quic-ctl command web-1 --type exec_shell --payload '{"command": "make", "work_dir": "/src"}' --timeout 10m
  quic-ctl command list --client web-1 --status failed`

// what says what hosts are to run.
type what struct {
	kind, payload string
	timeout       time.Duration
}

func (w *what) register(flags *pflag.FlagSet) {
	flags.StringVar(&w.kind, "type", "", "type of the command (default exec_shell, which runs what stands after --)")
	flags.StringVar(&w.payload, "payload", "", "JSON object for the command")
	flags.DurationVar(&w.timeout, "timeout", 0, "for each host, from the start there (default: the server's, 1m)")
}

// command gives type and payload for a command line; words are what stands after --.
func (w *what) command(flags *pflag.FlagSet, words []string) (kind string, payload map[string]any, err error) {
	kind = w.kind
	if flags.Changed("timeout") && w.timeout <= 0 {
		return "", nil, usagef("--timeout %s is not a time to wait", w.timeout)
	}
	if w.payload != "" {
		d := json.NewDecoder(strings.NewReader(w.payload))
		d.UseNumber()
		if err := d.Decode(&payload); err != nil || payload == nil || d.More() {
			return "", nil, usagef(`--payload is not a JSON object such as {"path": "/tmp"}`)
		}
	}
	switch {
	case len(words) == 0 && kind == "":
		return "", nil, usagef("say what to run: after --, as in -- ls -la, or with --type")
	case len(words) == 0:
		return kind, payload, nil
	case kind != "" && kind != job.ExecShell:
		return "", nil, usagef("what stands after -- is for exec_shell; for %s give a --payload", kind)
	case payload["command"] != nil:
		return "", nil, usagef("give the line after --, or in --payload, not both")
	case payload == nil:
		payload = map[string]any{}
	}
	payload["command"] = shellLine(words)
	return job.ExecShell, payload, nil
}

// shellLine makes a line for the shell. A single word is one already; of several each stays what it is.
func shellLine(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = w
		if w == "" || strings.ContainsFunc(w, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:=,+@%^", r) || r > 127)
		}) {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// split parts the arguments before -- from those after it.
func split(cmd *cobra.Command, args []string) (before, words []string) {
	if n := cmd.ArgsLenAtDash(); n >= 0 {
		return args[:n], args[n:]
	}
	return args, nil
}

func (c *cli) command() *cobra.Command {
	run, flags := c.commandRun()
	commands := group("command", "Run a command on a host; get, list, cancel", run, c.commandGet(), c.commandList(), c.commandCancel())
	commands.Aliases = []string{"commands", "exec"}
	commands.Use = "command CLIENT [--type T] [--payload JSON] -- COMMAND..."
	commands.Example = commandExample
	commands.Long = "Run a command on a host and show what it prints. A single word after -- is a line for the shell; several are taken word by word.\n" +
		"Ctrl-C ends the waiting, not the command."
	commands.Args = cobra.ArbitraryArgs
	commands.ValidArgsFunction = run.ValidArgsFunction
	flags(commands)
	commands.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return run.RunE(cmd, args)
	}
	return commands
}

// commandRun gives the command that runs one, and a function that adds its flags to another.
func (c *cli) commandRun() (*cobra.Command, func(*cobra.Command)) {
	var w what
	var detach bool
	flags := func(cmd *cobra.Command) {
		w.register(cmd.Flags())
		cmd.Flags().BoolVarP(&detach, "detach", "d", false, "do not wait; print the id of the command")
		c.completeTypes(cmd)
	}
	cmd := &cobra.Command{
		Use: "run CLIENT -- COMMAND...", Short: "Run a command on a host (the word run may be left out)", Example: commandExample,
		ValidArgsFunction: c.completeClients,
		RunE: func(cmd *cobra.Command, args []string) error {
			hosts, words := split(cmd, args)
			if len(hosts) != 1 {
				return usagef("name one host, and put what to run after --: quic-ctl command HOST -- ls -la")
			}
			kind, payload, err := w.command(cmd.Flags(), words)
			if err != nil {
				return err
			}
			doc := newDocument()
			doc.set("client_id", hosts[0])
			doc.set("command_type", kind)
			if payload != nil {
				doc.set("payload", payload)
			}
			if w.timeout > 0 {
				doc.set("timeout", w.timeout.Seconds())
			}
			body, err := doc.body()
			if err != nil {
				return err
			}
			api, err := c.api()
			if err != nil {
				return err
			}
			made, err := apiclient.Read[apiclient.CommandAnswer](api.CreateCommandWithBody(cmd.Context(), nil, "application/json", body))
			if err != nil {
				return err
			}
			if detach {
				if c.json() {
					return c.writeJSON(made)
				}
				fmt.Fprintf(c.err, "See what becomes of it with: quic-ctl command get %s\n", made.CommandID)
				fmt.Fprintln(c.out, made.CommandID)
				return nil
			}
			return c.awaitCommand(cmd.Context(), api, made.CommandID, kind == job.ExecShell && !c.json())
		},
	}
	flags(cmd)
	return cmd, flags
}

// awaitCommand waits for a command, shows what it prints as it comes where live says so, and tells the outcome.
func (c *cli) awaitCommand(ctx context.Context, api *apiclient.API, id string, live bool) error {
	jobID, _, _ := strings.Cut(id, ".")
	say := func(text string) { fmt.Fprintln(c.err, text) }
	var err error
	if live {
		err = c.printLive(ctx, api, jobID, say)
	} else {
		results := &apiclient.JobFollower{API: api, JobID: jobID, Lost: lost(say)}
		for _, problem := range results.Events(ctx) {
			err = problem
		}
	}
	if ctx.Err() != nil {
		fmt.Fprintf(c.err, "The command goes on. See what becomes of it with: quic-ctl command get %s\nStop it with: quic-ctl command cancel %s\n", id, id)
		return exitWith{exitInterrupted}
	}
	if err != nil {
		return err
	}
	info, err := apiclient.Read[apiclient.CommandInfo](api.GetCommand(ctx, id))
	if err != nil {
		return err
	}
	switch {
	case c.json():
		if err := c.writeJSON(info); err != nil {
			return err
		}
	case !live && info.Stdout+info.Stderr != "" && len(info.Result) > 0: // what it printed says more than the result beside it
		fmt.Fprint(c.out, c.shown(c.out, info.Stdout))
		fmt.Fprint(c.err, c.shown(c.err, info.Stderr))
		if info.StdoutTruncated || info.StderrTruncated {
			say("! this is only the end; all of it: quic-ctl batch logs " + jobID)
		}
	case !live && len(info.Result) > 0:
		if err := c.writeJSON(info.Result); err != nil {
			return err
		}
	}
	if job.State(info.Outcome) == job.StateSucceeded {
		return nil
	}
	if !c.json() {
		why := ""
		if info.Error != "" && info.Error != string(info.Outcome) {
			why = ": " + printable(info.Error)
		}
		fmt.Fprintf(c.err, "%s %s%s\n", c.paint(c.err, bad, "✗ "+info.ClientID), info.Outcome, why)
	}
	return exitWith{exitTaskFailed}
}

// printLive prints what the host of a job writes, to where it wrote it.
func (c *cli) printLive(ctx context.Context, api *apiclient.API, jobID string, say func(string)) error {
	follower := &apiclient.Follower{API: api, JobID: jobID}
	c.tellConnection(follower, say)
	out, errs := rawPrinter{w: c.out}, rawPrinter{w: c.err}
	defer func() { out.flush(); errs.flush() }()
	for event, err := range follower.Events(ctx) {
		switch {
		case err != nil:
			return err
		case event.Log != nil && event.Log.Stream == apiclient.LogLineStreamStdout:
			out.print(*event.Log)
		case event.Log != nil && event.Log.Stream == apiclient.LogLineStreamStderr:
			errs.print(*event.Log)
		case event.Gap != nil:
			say(gapText(*event.Gap))
		case event.End != nil && !event.End.LogsComplete:
			say("! not all of the output has arrived; later, quic-ctl batch logs " + jobID + " may have it")
		}
	}
	return nil
}

func (c *cli) commandGet() *cobra.Command {
	return &cobra.Command{Use: "get COMMAND-ID", Short: "Show a command and its result", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		api, err := c.api()
		if err != nil {
			return err
		}
		info, err := apiclient.Read[apiclient.CommandInfo](api.GetCommand(cmd.Context(), args[0]))
		if err != nil {
			return err
		}
		return c.writeJSON(info)
	}}
}

func (c *cli) commandList() *cobra.Command {
	var client, kind, status string
	var limit int
	cmd := &cobra.Command{Use: "list", Short: "List commands, those of batch jobs too, the newest first", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		api, err := c.api()
		if err != nil {
			return err
		}
		found, err := pages(cmd.Context(), limit, func(ctx context.Context, limit, offset int64) ([]apiclient.CommandInfo, error) {
			answer, err := apiclient.Read[apiclient.CommandList](api.ListCommands(ctx, &apiclient.ListCommandsParams{
				ClientID: apiclient.Optional(client), CommandType: apiclient.Optional(kind),
				Status: apiclient.Optional(apiclient.ListCommandsParamsStatus(status)), Limit: &limit, Offset: &offset,
			}))
			return answer.Commands, err
		})
		if err != nil {
			return err
		}
		return list(c, found, []string{"CLIENT", "TYPE", "STATUS", "OUTCOME", "EXIT", "TIME", "MADE", "BY", "COMMAND-ID", "ERROR"}, func(i apiclient.CommandInfo) []string {
			return []string{
				i.ClientID, i.CommandType, string(i.Status), string(i.Outcome), exitText(i.ExitCode), took(i.StartedAt, i.FinishedAt),
				ago(i.CreatedAt), i.CreatedBy, i.CommandID, short(i.Error),
			}
		})
	}}
	cmd.Flags().StringVar(&client, "client", "", "only of this agent")
	cmd.Flags().StringVar(&kind, "type", "", "only of this type")
	cmd.Flags().StringVar(&status, "status", "", "only pending, executing, completed, failed, timeout or cancelled ones")
	cmd.Flags().IntVar(&limit, "limit", 20, "how many at most; 0 is all")
	_ = cmd.RegisterFlagCompletionFunc("status", cobra.FixedCompletions([]string{"pending", "executing", "completed", "failed", "timeout", "cancelled"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("client", c.completeClients)
	c.completeTypes(cmd)
	return cmd
}

func (c *cli) commandCancel() *cobra.Command {
	var body apiclient.Intervention
	cmd := &cobra.Command{Use: "cancel COMMAND-ID", Short: "Stop a command", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		api, err := c.api()
		if err != nil {
			return err
		}
		info, err := apiclient.Read[apiclient.CommandInfo](api.CancelCommand(cmd.Context(), args[0], body))
		if err != nil {
			return err
		}
		if c.json() {
			return c.writeJSON(info)
		}
		fmt.Fprintf(c.out, "%s on %s: being stopped\n", info.CommandType, info.ClientID)
		return nil
	}}
	cmd.Flags().StringVar(&body.Reason, "reason", "", "kept with the command")
	return cmd
}

func exitText(code *int64) string {
	if code == nil {
		return ""
	}
	return fmt.Sprint(*code)
}

func took(started, finished time.Time) string {
	if started.IsZero() || finished.IsZero() {
		return ""
	}
	return round(finished.Sub(started))
}
