package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/quicflow/quicflow/internal/app"
	"github.com/quicflow/quicflow/internal/config"
)

func newRoot(stdout, stderr io.Writer) *cobra.Command {
	var file, dataDir string
	root := &cobra.Command{
		Use:   "quic-server",
		Short: "QuicFlow's server",
		Long: `quic-server runs QuicFlow: the hub that agents connect to, the HTTP API, and, unless the configuration names
others, a Temporal server and a database of its own. Without any configuration everything listens on loopback but
the agents' port, and keeps its state in one data directory.

Keys of the configuration can be set by environment variables too: server.addr is QUIC_SERVER_ADDR.`,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if file == "" {
				file = config.Find()
			}
			c, err := config.Load(file, os.Environ())
			if err != nil {
				return err
			}
			if dataDir != "" {
				c.Server.DataDir = dataDir
			}
			logger, closeLog, err := app.OpenLog(c.Log, stdout)
			if err != nil {
				return err
			}
			defer func() { _ = closeLog() }()
			slog.SetDefault(logger) // libraries that write to package log are heard there too
			if file != "" {
				logger.Info("configuration read", "file", file)
			}
			return app.Run(cmd.Context(), app.Config{Config: c, Version: version, Greeting: stderr, Logger: logger})
		},
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.Flags().StringVarP(&file, "config", "c", "", "configuration file (default: config/server.yaml here or beside bin, then /etc/quicflow/server.yaml, if there is one)")
	root.Flags().StringVar(&dataDir, "data-dir", "", "directory of all state (default: /var/lib/quicflow/server for root, else $XDG_STATE_HOME/quicflow/server)")
	root.AddCommand(newGenconfig(), newVersion())
	return root
}

func newGenconfig() *cobra.Command {
	var out string
	var highPerf bool
	cmd := &cobra.Command{
		Use:   "genconfig",
		Short: "Write a configuration file with every key, its default and what it does",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := config.Standard()
			if highPerf {
				c = config.HighPerformance()
			}
			if out == "" {
				return config.Write(cmd.OutOrStdout(), c)
			}
			f, err := os.OpenFile(out, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600) // it is where a password may be put
			if err != nil {
				return fmt.Errorf("write the configuration: %w", err)
			}
			if err := config.Write(f, c); err != nil {
				_ = f.Close()
				return fmt.Errorf("write the configuration: %w", err)
			}
			return f.Close()
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "file to write (default: standard output)")
	cmd.Flags().BoolVar(&highPerf, "high-perf", false, "the preset for 100,000 agents and more")
	return cmd
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say what this program was built from",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintf(cmd.OutOrStdout(), "quic-server %s\n", version)
			revision, modified := "", ""
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					switch {
					case s.Key == "vcs.revision":
						revision = s.Value
					case s.Key == "vcs.modified" && s.Value == "true":
						modified = " (modified)"
					}
				}
			}
			if revision != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "revision   %s%s\n", revision, modified)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "built with %s for %s/%s\ntemporal   %s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, app.TemporalVersion)
		},
	}
}
