package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quicflow/quicflow/internal/apiclient"
)

// Exit codes, as --help tells them.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitTaskFailed  = 3
	exitTaskPartial = 4
	exitInterrupted = 130
)

const about = `quic-ctl rolls versions of projects out to hosts, runs commands on them, and shows what runs where.

On the machine of the server it finds address and token by itself, in the server's data directory.
Elsewhere give --server and --token, or QUICFLOW_SERVER and QUICFLOW_TOKEN.

Exit codes:
  0    done; the task, command or job that was waited for succeeded
  1    error
  2    wrong usage
  3    what was waited for failed, or was stopped; a task was rolled back
  4    it ended, but not on every target
  130  interrupted; a task, command or job goes on without us`

const examples = `  quic-ctl clients
  quic-ctl agent token --uses 10
  quic-ctl project create -f project.yaml
  quic-ctl artifact upload shop-2.0.tar.gz
  quic-ctl version create -f version.yaml
  quic-ctl task create --project hello --version 2.0 --selector 'env=prod' --canary 20 --soak 10s --wait
  quic-ctl logs -f TASK
  quic-ctl command web-1 -- uptime
  quic-ctl batch run --selector env=prod --wait -- systemctl restart shop`

// usageError is a mistake on the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exitWith ends the program with a code, without a message: the command has said what there is to say.
type exitWith struct{ code int }

func (e exitWith) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// cli is what the commands share.
type cli struct {
	terminal
	getenv  func(string) string
	options options
	began   bool // the command line was understood
}

// run executes a command line and gives the exit code.
func run(ctx context.Context, t terminal, getenv func(string) string, args []string) int {
	t.plain = getenv("NO_COLOR") != "" || getenv("TERM") == "dumb"
	c := &cli{terminal: t, getenv: getenv}
	root := c.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var exit exitWith
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit):
		return exit.code
	case ctx.Err() != nil:
		return exitInterrupted
	case !c.began || errors.As(err, &usage):
		fmt.Fprintf(c.err, "quic-ctl: %v\nSee quic-ctl --help.\n", err)
		return exitUsage
	}
	c.explain(err)
	return exitError
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use: "quic-ctl", Short: "Roll out releases with QuicFlow", Long: about, Example: examples,
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			c.began = true
			c.yaml = c.options.output == "yaml"
			return c.options.check(c.getenv)
		},
	}
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	c.options.register(root)
	root.AddCommand(c.clients(), c.agent(), c.apply(), c.export(), c.project(), c.environment(), c.variable(), c.artifact(), c.version(), c.task(), c.schedule(),
		c.preview(), c.logs(), c.installations(), c.drift(),
		c.command(), c.batch(), c.send(), c.broadcast())
	return root
}

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: use, Short: short, RunE: func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usagef("%s has no command %q", cmd.CommandPath(), args[0])
		}
		return cmd.Help()
	}}
	g.AddCommand(commands...)
	return g
}

// explain says what went wrong, and what may help.
func (c *cli) explain(err error) {
	for i, line := range strings.Split(err.Error(), "\n") {
		if i == 0 {
			line = "quic-ctl: " + line
		}
		fmt.Fprintln(c.err, printable(line))
	}
	var problem *apiclient.Problem
	if errors.As(err, &problem) {
		if problem.Status == 401 {
			fmt.Fprintln(c.err, "Give a token with --token or QUICFLOW_TOKEN; the first one is in admin.token in the server's data directory.")
		}
		if len(problem.Errors) > 1 {
			for _, e := range problem.Errors {
				fmt.Fprintln(c.err, printable("  "+fieldOf(e.Location)+": "+e.Message))
			}
		}
	}
}
