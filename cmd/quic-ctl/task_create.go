package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/quicflow/quicflow/internal/apiclient"
)

const taskExample = `  quic-ctl task create --project hello --version 2.0 --selector '*' --canary 20 --soak 10s --wait
  quic-ctl task create -f task.yaml --version 2.1 --watch
  quic-ctl task create --project hello --uninstall --targets web-1,web-2
  quic-ctl task create -f task.yaml --at '2027-01-09 02:00'   # by a schedule; see: quic-ctl schedule

  # task.yaml
  project: hello
  version: "2.0"
  targets:
    selector: env=prod,!maintenance
  strategy:
    canary: {percent: 5, soak: 10m, promote: manual}
    waves: [25, 50, 100]
    max_failures: 10%
    on_failure: rollback`

// taskFlags are the parts of a task that can be said without a file.
type taskFlags struct {
	file string
	set  []func(flags *pflag.FlagSet, doc *document) error
}

func (f *taskFlags) register(flags *pflag.FlagSet) {
	flags.StringVarP(&f.file, "file", "f", "", "YAML file, or - for the standard input; flags go before what it says")
	f.text(flags, "project", "project", "project, by name or id")
	f.text(flags, "version", "version", "version, by name or id")
	f.text(flags, "environment", "environment", "environment of the project, whose variables count; hosts and strategy come from it unless they are given")
	f.text(flags, "selector", "targets.selector", "hosts by label, such as env=prod,os=linux,!maintenance; * is every agent")
	f.text(flags, "soak", "strategy.canary.soak", "how long the canary runs before the rest follows")
	f.text(flags, "promote", "strategy.canary.promote", "auto: go on after the soak; manual: wait for task promote")
	f.text(flags, "canary-max-failures", "strategy.canary.max_failures", "failed canary hosts that are tolerated")
	f.text(flags, "max-failures", "strategy.max_failures", "failed hosts that are tolerated, as 3 or 10% (default 0)")
	f.text(flags, "on-failure", "strategy.on_failure", "when more fail: stop or rollback (default stop)")
	f.text(flags, "offline", "strategy.offline", "hosts that cannot be reached: skip or fail (default skip)")
	f.text(flags, "timeout", "override.timeout", "of a step, over what the version says")
	f.other(flags, flags.StringSlice("targets", nil, "hosts by id"), "targets", "targets.clients")
	f.other(flags, flags.Float64("canary", 0, "share of the hosts that go first, in percent"), "canary", "strategy.canary.percent")
	f.other(flags, flags.Int("max-parallel", 0, "hosts at work at any moment (default 100)"), "max-parallel", "strategy.max_parallel")
	f.other(flags, flags.StringToString("env", nil, "environment variables, over what the version says: K=V"), "env", "override.env")

	waves := flags.StringSlice("waves", nil, "rising shares in percent that are done after each wave, as 25,50,100")
	f.set = append(f.set, func(flags *pflag.FlagSet, doc *document) error {
		if !flags.Changed("waves") {
			return nil
		}
		shares := make([]float64, 0, len(*waves))
		for _, text := range *waves {
			share, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(text), "%"), 64)
			if err != nil {
				return usagef("--waves: %q is not a percentage", text)
			}
			shares = append(shares, share)
		}
		doc.set("strategy.waves", shares)
		return nil
	})
	uninstall := flags.Bool("uninstall", false, "remove whatever version of the project the hosts run")
	f.set = append(f.set, func(_ *pflag.FlagSet, doc *document) error {
		if *uninstall {
			doc.set("action", "uninstall")
		}
		return nil
	})
}

func (f *taskFlags) text(flags *pflag.FlagSet, name, path, usage string) {
	f.other(flags, flags.String(name, "", usage), name, path)
}

func (f *taskFlags) other(_ *pflag.FlagSet, value any, name, path string) {
	f.set = append(f.set, func(flags *pflag.FlagSet, doc *document) error {
		if flags.Changed(name) {
			doc.set(path, value)
		}
		return nil
	})
}

// document gives the task as file and flags say it.
func (f *taskFlags) document(c *cli, flags *pflag.FlagSet) (*document, error) {
	doc := newDocument()
	if f.file != "" {
		read, err := c.readDocument(f.file)
		if err != nil {
			return nil, err
		}
		doc = read
	}
	for _, set := range f.set {
		if err := set(flags, doc); err != nil {
			return nil, err
		}
	}
	if len(doc.values) == 0 {
		return nil, usagef("say what to roll out, with -f FILE or with --project, --version and --targets or --selector")
	}
	return doc, nil
}

func (c *cli) taskCreate() *cobra.Command {
	var task taskFlags
	var times timeFlags
	var wait, watch bool
	cmd := &cobra.Command{
		Use: "create", Short: "Roll a version out", Example: taskExample, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			doc, err := task.document(c, cmd.Flags())
			if err != nil {
				return err
			}
			if times.at != "" || times.cron != "" {
				if wait || watch {
					return usagef("a task of a schedule cannot be waited for; follow it with: quic-ctl schedule get")
				}
				return c.scheduleTask(cmd.Context(), &times, cmd.Flags(), doc)
			}
			api, err := c.api()
			if err != nil {
				return err
			}
			body, err := doc.body()
			if err != nil {
				return err
			}
			made, err := apiclient.Read[apiclient.Task](api.CreateTaskWithBody(cmd.Context(), nil, "application/json", body))
			if err != nil {
				return doc.locate(err)
			}
			return c.taskMade(cmd.Context(), api, made, wait, watch)
		},
	}
	task.register(cmd.Flags())
	times.register(cmd.Flags())
	cmd.Flags().BoolVar(&wait, "wait", false, "show the progress and wait for the end; the exit code tells the outcome")
	cmd.Flags().BoolVar(&watch, "watch", false, "as --wait, with live log lines")
	return cmd
}

// taskMade tells of a new task, or follows it to its end.
func (c *cli) taskMade(ctx context.Context, api *apiclient.API, made apiclient.Task, wait, watch bool) error {
	if wait || watch {
		if !c.json() {
			fmt.Fprintf(c.err, "%s %s on %d %s, task %s\n", made.Project, describe(made), made.Counts.Total, plural(int(made.Counts.Total), "host"), made.ID)
		}
		return c.watch(ctx, api, made, watching{logs: watch})
	}
	words := fmt.Sprintf("%s %s on %d %s; follow it with: quic-ctl task watch %s",
		made.Project, describe(made), made.Counts.Total, plural(int(made.Counts.Total), "host"), made.ID)
	return c.made(made, words, made.ID)
}

func (c *cli) taskRetry() *cobra.Command {
	var wait, watch bool
	cmd := &cobra.Command{
		Use: "retry TASK", Short: "Do again what an ended task left undone, as a new task", Args: cobra.ExactArgs(1),
		Long: `Do again what an ended task left undone: a new task with the same configuration, for the hosts where it failed, was stopped or not begun, or
of which nothing is known. Hosts that were rolled back are left as they are.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			made, err := apiclient.Read[apiclient.Task](api.RetryTask(cmd.Context(), args[0]))
			if err != nil {
				return err
			}
			return c.taskMade(cmd.Context(), api, made, wait, watch)
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "show the progress and wait for the end; the exit code tells the outcome")
	cmd.Flags().BoolVar(&watch, "watch", false, "as --wait, with live log lines")
	return cmd
}

// describe says what a task does, in short.
func describe(t apiclient.Task) string {
	if t.Action == apiclient.TaskActionUninstall {
		return "uninstall"
	}
	return t.Version
}
