// Command quic-client is QuicFlow's agent.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/quicflow/quicflow/agent/executor/wrapper"
)

// version is set by the linker.
var version = "dev"

func main() {
	wrapper.MaybeRun(workers()...)
	// The agent needs no large UDP buffers, and quic-go prints a warning about them.
	_ = os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd := newCommand()
	cmd.SetArgs(normalize(os.Args[1:]))
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

// normalize accepts the spellings -server, -id and -insecure beside those with two dashes.
func normalize(args []string) []string {
	normal := make([]string, 0, len(args))
	for i, arg := range args {
		if arg == "--" {
			return append(normal, args[i:]...)
		}
		name, _, _ := strings.Cut(arg, "=")
		switch name {
		case "-server", "-id", "-insecure":
			arg = "-" + arg
		}
		normal = append(normal, arg)
	}
	return normal
}

func newCommand() *cobra.Command {
	o := &options{}
	root := &cobra.Command{
		Use:   "quic-client",
		Short: "QuicFlow's agent: runs on a host, holds one QUIC connection to a server and carries out its releases",
		Long: `QuicFlow's agent: runs on a host, holds one QUIC connection to a server and carries out its releases.

The first time, it joins with a token, which "quic-ctl agent token" prints on the server. Beside a server of the
same user it needs none. Afterwards its identity is in the data directory, and it just connects.`,
		Example: `  QUIC_JOIN_TOKEN=qfj1.… quic-client --server hub.example.com:8474 --id web-1 --label zone=eu
  quic-client --id web-1                     # beside a local server, or joined before`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.register(root.PersistentFlags())
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		o.serverGiven = cmd.Flags().Changed("server")
		return o.setUpLog()
	}
	join := &cobra.Command{
		Use:   "join",
		Short: "Get an identity with a join token, in place of the one there is, and exit",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return o.join(cmd.Context()) },
	}
	join.Flags().DurationVar(&o.joinTimeout, "timeout", defaultJoinTimeout, "give up after this time")
	root.AddCommand(join, o.upgradeCommand(), o.serviceCommand(), &cobra.Command{
		Use:   "facts",
		Short: "Print what the agent tells a server of this host",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return o.facts(cmd.Context(), cmd.OutOrStdout()) },
	}, &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "quic-client %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	})
	return root
}

func (o *options) setUpLog() error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return fmt.Errorf("--log-level: %q is none of debug, info, warn, error", o.logLevel)
	}
	o.logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	return nil
}
