package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quicflow/quicflow/internal/apiclient"
	"github.com/quicflow/quicflow/internal/job"
)

const batchExample = `  quic-ctl batch run --selector env=prod --wait -- uptime
  quic-ctl batch run --clients web-1,web-2 --stream -- df -h
  quic-ctl batch run --clients-from hosts.txt --concurrency 100 --max-failures 5% --wait -- systemctl restart shop
  quic-ctl batch run --selector '*' --type system.info --stream -o json`

func (c *cli) batch() *cobra.Command {
	batch := group("batch", "Run a command on many hosts, and steer that",
		c.batchRun(), c.batchList(), c.batchGet(), c.batchTargets(), c.batchWatch(), c.batchLogs(), c.batchRetry())
	batch.Aliases = []string{"job", "jobs"}
	batch.Example = batchExample
	for _, steer := range []struct {
		name, short, done string
		do                func(api *apiclient.API, ctx context.Context, id string, body apiclient.Intervention) (*http.Response, error)
	}{
		{"cancel", "Stop a job: start nothing new, stop what runs", "being stopped", func(api *apiclient.API, ctx context.Context, id string, body apiclient.Intervention) (*http.Response, error) {
			return api.CancelBatchJob(ctx, id, body)
		}},
		{"pause", "Start nothing new until the job is resumed", "paused", func(api *apiclient.API, ctx context.Context, id string, body apiclient.Intervention) (*http.Response, error) {
			return api.PauseBatchJob(ctx, id, body)
		}},
		{"resume", "Go on with a paused job", "resumed", func(api *apiclient.API, ctx context.Context, id string, body apiclient.Intervention) (*http.Response, error) {
			return api.ResumeBatchJob(ctx, id, body)
		}},
	} {
		var body apiclient.Intervention
		cmd := &cobra.Command{Use: steer.name + " JOB", Short: steer.short, Args: cobra.ExactArgs(1), ValidArgsFunction: c.completeJobs, RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			j, err := apiclient.Read[apiclient.BatchJob](steer.do(api, cmd.Context(), args[0], body))
			if err != nil {
				return err
			}
			if c.json() {
				return c.writeJSON(j)
			}
			fmt.Fprintf(c.out, "%s on %d %s: %s\n", j.CommandType, j.Total, plural(int(j.Total), "host"), steer.done)
			return nil
		}}
		cmd.Flags().StringVar(&body.Reason, "reason", "", "kept with the job")
		batch.AddCommand(cmd)
	}
	return batch
}

// staying says how long a command stays with a job that it has made.
type staying struct{ wait, stream bool }

func (s *staying) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&s.wait, "wait", false, "show the progress and wait for the end; the exit code tells the outcome")
	cmd.Flags().BoolVar(&s.stream, "stream", false, "as --wait, with what each host printed as soon as it has finished")
}

func (c *cli) batchRun() *cobra.Command {
	var w what
	var stay staying
	var clients []string
	var from string
	cmd := &cobra.Command{
		Use: "run (--selector S | --clients IDS | --clients-from FILE) -- COMMAND...", Short: "Run a command on many hosts", Example: batchExample,
		Long: "Run a command on many hosts. A single word after -- is a line for the shell; several are taken word by word.\n" +
			"Ctrl-C ends the waiting, not the job.",
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := cmd.Flags()
	w.register(flags)
	flags.String("selector", "", "hosts by label, such as env=prod,os=linux,!maintenance; * is every agent")
	flags.StringSliceVar(&clients, "clients", nil, "hosts by id")
	flags.StringVar(&from, "clients-from", "", "file with an id a line, or - for the standard input; # begins a comment")
	flags.Bool("allow-missing", false, "leave out listed hosts that are not known, instead of running it nowhere")
	flags.Int("concurrency", 0, "hosts at work at once (default: the server's, 5000)")
	flags.Duration("job-timeout", 0, "for all hosts together (default: the server's)")
	flags.Int("retries", 0, "how often a host that did not start it is tried again (default: the server's, 2)")
	flags.Duration("retry-interval", 0, "between two tries (default: the server's, 1s)")
	flags.Bool("retry-on-failure", false, "try again too where it ran and failed, or took too long")
	flags.String("max-failures", "", "more failed hosts than this, as 10 or 5%, end the job (default: any number may fail)")
	flags.Duration("wait-offline", 0, "how long hosts that are offline are waited for (default: not at all)")
	stay.register(cmd)
	c.completeTypes(cmd)
	_ = cmd.RegisterFlagCompletionFunc("clients", func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		before := begun[:strings.LastIndex(begun, ",")+1]
		ids, directive := c.completeClients(cmd, nil, begun[len(before):])
		for i := range ids {
			ids[i] = before + ids[i]
		}
		return ids, directive | cobra.ShellCompDirectiveNoSpace
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		before, words := split(cmd, args)
		if len(before) > 0 {
			return usagef("%q stands before --; name hosts with --clients, --clients-from or --selector", before[0])
		}
		kind, payload, err := w.command(flags, words)
		if err != nil {
			return err
		}
		doc := newDocument()
		doc.set("command_type", kind)
		if payload != nil {
			doc.set("payload", payload)
		}
		if from != "" {
			listed, err := c.readList(from)
			if err != nil {
				return err
			}
			clients = append(clients, listed...)
		}
		if len(clients) > 0 {
			doc.set("target_clients", clients)
		}
		if len(clients) == 0 && !flags.Changed("selector") {
			return usagef("say on which hosts, with --selector, --clients or --clients-from; --selector '*' is every agent")
		}
		for flag, field := range map[string]string{
			"selector": "selector", "allow-missing": "allow_missing", "concurrency": "concurrency", "timeout": "task_timeout",
			"job-timeout": "job_timeout", "retries": "retries", "retry-interval": "retry_interval", "retry-on-failure": "retry_on_failure",
			"max-failures": "max_failures", "wait-offline": "wait_offline",
		} {
			if flags.Changed(flag) {
				doc.set(field, flagValue(flags.Lookup(flag).Value))
			}
		}
		body, err := doc.body()
		if err != nil {
			return err
		}
		api, err := c.api()
		if err != nil {
			return err
		}
		made, err := apiclient.Read[apiclient.BatchAnswer](api.ExecuteBatchWithBody(cmd.Context(), nil, "application/json", body))
		if err != nil {
			return err
		}
		return c.stay(cmd.Context(), api, made, stay)
	}
	return cmd
}

// stay tells of a job that was made, and stays with it where that is wanted.
func (c *cli) stay(ctx context.Context, api *apiclient.API, made apiclient.BatchAnswer, stay staying) error {
	if n := len(made.Missing); n > 0 {
		fmt.Fprintln(c.err, printable(fmt.Sprintf("! left out, as not known: %s", some(made.Missing))))
	}
	hosts := fmt.Sprintf("%d %s", made.Total, plural(int(made.Total), "host"))
	if stay.wait || stay.stream {
		if !c.json() {
			fmt.Fprintf(c.err, "%s on %s, job %s\n", made.CommandType, hosts, made.JobID)
		}
		return c.watchJob(ctx, api, made.JobID, stay.stream)
	}
	if c.json() {
		return c.writeJSON(made)
	}
	fmt.Fprintf(c.err, "%s on %s; follow it with: quic-ctl batch watch %s\n", made.CommandType, hosts, made.JobID)
	fmt.Fprintln(c.out, made.JobID)
	return nil
}

// some names a few of many.
func some(names []string) string {
	const few = 5
	if len(names) <= few {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
}

// readList reads an id a line.
func (c *cli) readList(file string) ([]string, error) {
	in := c.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	var ids []string
	lines := bufio.NewScanner(in)
	for number := 1; lines.Scan(); number++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		switch words := strings.Fields(line); len(words) {
		case 0:
		case 1:
			ids = append(ids, words[0])
		default:
			return nil, fmt.Errorf("%s:%d: %q: want one id a line", file, number, strings.TrimSpace(line))
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("%s: %w", file, io.ErrUnexpectedEOF)
	}
	return ids, nil
}

func (c *cli) batchList() *cobra.Command {
	var status, kind string
	var limit int
	cmd := &cobra.Command{Use: "list", Short: "List jobs, the newest first", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		api, err := c.api()
		if err != nil {
			return err
		}
		found, err := pages(cmd.Context(), limit, func(ctx context.Context, limit, offset int64) ([]apiclient.BatchJob, error) {
			answer, err := apiclient.Read[apiclient.BatchJobList](api.ListBatchJobs(ctx, &apiclient.ListBatchJobsParams{
				Status: apiclient.Optional(apiclient.ListBatchJobsParamsStatus(status)), Kind: apiclient.Optional(apiclient.ListBatchJobsParamsKind(kind)),
				Limit: &limit, Offset: &offset,
			}))
			return answer.Jobs, err
		})
		if err != nil {
			return err
		}
		return list(c, found, []string{"JOB", "TYPE", "STATUS", "DONE", "FAILED", "MADE", "TOOK", "BY", "REASON"}, func(j apiclient.BatchJob) []string {
			return []string{
				j.JobID, j.CommandType, string(j.Status), fmt.Sprintf("%d/%d", j.SuccessCount, j.Total), fmt.Sprint(j.FailedCount),
				ago(j.CreatedAt), took(j.CreatedAt, j.FinishedAt), j.CreatedBy, short(j.Reason),
			}
		})
	}}
	cmd.Flags().StringVar(&status, "status", "", "only of this status")
	cmd.Flags().StringVar(&kind, "kind", "", "only batch, multi, stream or command ones (default: all but single commands)")
	cmd.Flags().IntVar(&limit, "limit", 20, "how many at most; 0 is all")
	var statuses []string
	for _, s := range job.Statuses() {
		statuses = append(statuses, string(s))
	}
	_ = cmd.RegisterFlagCompletionFunc("status", cobra.FixedCompletions(statuses, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (c *cli) batchGet() *cobra.Command {
	return &cobra.Command{Use: "get JOB", Short: "Show a job", Args: cobra.ExactArgs(1), ValidArgsFunction: c.completeJobs, RunE: func(cmd *cobra.Command, args []string) error {
		api, err := c.api()
		if err != nil {
			return err
		}
		j, err := apiclient.Read[apiclient.BatchJob](api.GetBatchJob(cmd.Context(), args[0]))
		if err != nil {
			return err
		}
		return c.writeJSON(j)
	}}
}

func (c *cli) batchTargets() *cobra.Command {
	var state string
	cmd := &cobra.Command{Use: "targets JOB", Short: "Show the hosts of a job", Args: cobra.ExactArgs(1), ValidArgsFunction: c.completeJobs, RunE: func(cmd *cobra.Command, args []string) error {
		api, err := c.api()
		if err != nil {
			return err
		}
		found, err := jobTargets(cmd.Context(), api, args[0], state)
		if err != nil {
			return err
		}
		return list(c, found, []string{"CLIENT", "STATE", "TRY", "EXIT", "TIME", "ERROR"}, func(t apiclient.JobTarget) []string {
			return []string{t.ClientID, string(t.State), fmt.Sprint(t.Attempt), exitText(t.ExitCode), took(t.StartedAt, t.FinishedAt), short(t.Error)}
		})
	}}
	cmd.Flags().StringVar(&state, "state", "", "only in this state")
	var states []string
	for _, s := range job.States() {
		states = append(states, string(s))
	}
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(states, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func jobTargets(ctx context.Context, api *apiclient.API, jobID, state string) ([]apiclient.JobTarget, error) {
	return pages(ctx, 0, func(ctx context.Context, limit, offset int64) ([]apiclient.JobTarget, error) {
		answer, err := apiclient.Read[apiclient.JobTargetList](api.ListJobTargets(ctx, jobID, &apiclient.ListJobTargetsParams{
			State: apiclient.Optional(apiclient.ListJobTargetsParamsState(state)), Limit: &limit, Offset: &offset,
		}))
		return answer.Targets, err
	})
}

func (c *cli) batchWatch() *cobra.Command {
	var stream bool
	cmd := &cobra.Command{
		Use: "watch JOB", Short: "Show the progress of a job until its end; the exit code tells the outcome", Args: cobra.ExactArgs(1), ValidArgsFunction: c.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			return c.watchJob(cmd.Context(), api, args[0], stream)
		},
	}
	cmd.Flags().BoolVar(&stream, "stream", false, "what each host printed, too")
	return cmd
}

func (c *cli) batchLogs() *cobra.Command {
	cmd := c.logsCommand(logsOfJob)
	cmd.Use, cmd.Short, cmd.ValidArgsFunction = "logs JOB", "Show what the hosts of a job wrote", c.completeJobs
	cmd.Long = "Show what the hosts of a job wrote, as they wrote it. With -o json, one piece of output a line."
	return cmd
}

func (c *cli) batchRetry() *cobra.Command {
	var body apiclient.JobRetry
	var stay staying
	cmd := &cobra.Command{
		Use: "retry JOB", Short: "Run the command of an ended job again where it did not succeed; this is a new job", Args: cobra.ExactArgs(1), ValidArgsFunction: c.completeJobs,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			made, err := apiclient.Read[apiclient.BatchAnswer](api.RetryBatchJob(cmd.Context(), args[0], body))
			if err != nil {
				return err
			}
			return c.stay(cmd.Context(), api, made, stay)
		},
	}
	cmd.Flags().BoolVar(&body.IncludeUnknown, "include-unknown", false, "those too of which it cannot be known whether they ran it: some would run it twice")
	stay.register(cmd)
	return cmd
}
