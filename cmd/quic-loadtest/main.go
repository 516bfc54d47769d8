// Command quic-loadtest simulates many agents against a server and says what the server did with them.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "dev"

// gcPercent keeps the heap small: what an agent holds, it holds for long, and idle ones make little garbage.
const gcPercent = 25

func main() {
	// Sockets are made as large as the kernel allows, and quic-go prints a warning if that is not much.
	_ = os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal ends the process
	cmd := newCommand()
	cmd.SetArgs(normalize(os.Args[1:]))
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

// normalize accepts a value after a blank for the flags that are true or false.
func normalize(args []string) []string {
	normal := make([]string, 0, len(args))
	for _, arg := range args {
		if last := len(normal) - 1; last >= 0 && (arg == "true" || arg == "false") {
			switch normal[last] {
			case "-k", "--insecure", "--keep-alive":
				normal[last] += "=" + arg
				continue
			}
		}
		normal = append(normal, arg)
	}
	return normal
}

func newCommand() *cobra.Command {
	o := &options{}
	root := &cobra.Command{
		Use:   "quic-loadtest",
		Short: "Simulate many agents against a server",
		Long: `Simulate many agents against a server: each joins, holds a session of its own, sends heartbeats, answers messages
and carries out steps by waiting. Only agents that the server has accepted count. The program fails if one was not
accepted, or lost its session.

Beside a server of the same user it makes its own join token; else it needs --token. Identities are kept, so that
the next run need not join again.`,
		Example: `  quic-loadtest -n 1000                       # beside a local server, until Ctrl-C
  quic-loadtest -s hub:8474 -n 10000 --token qfj1.… --duration 5m --exec-time 1s-5s --failure-rate 0.01`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.serverGiven = cmd.Flags().Changed("server")
			o.out, o.err = cmd.OutOrStdout(), cmd.ErrOrStderr()
			return o.run(cmd.Context())
		},
	}
	o.register(root.Flags())
	root.AddCommand(newGenerate(), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "quic-loadtest %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	})
	return root
}

// newGenerate prints the names that a run gives its agents, as a list of targets for other programs.
func newGenerate() *cobra.Command {
	var count int
	var prefix, file string
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Print the ids of the agents, one a line",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			ids, err := clientIDs(prefix, count)
			if err != nil {
				return err
			}
			if file == "" || file == "-" {
				return printLines(cmd.OutOrStdout(), ids)
			}
			f, err := os.Create(file)
			if err != nil {
				return fmt.Errorf("--output: %w", err)
			}
			return errors.Join(printLines(f, ids), f.Close())
		},
	}
	cmd.Flags().IntVarP(&count, "count", "n", defaultCount, "number of agents")
	cmd.Flags().StringVarP(&prefix, "prefix", "p", defaultPrefix, "what the ids begin with")
	cmd.Flags().StringVarP(&file, "output", "o", "", "file to write (default: standard output)")
	return cmd
}

func printLines(w io.Writer, lines []string) error {
	b := bufio.NewWriter(w)
	for _, line := range lines {
		if _, err := b.WriteString(line + "\n"); err != nil {
			return err
		}
	}
	return b.Flush()
}

// list joins what is to be said of several things.
func list(parts []string) string { return strings.Join(parts, ", ") }
