package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quicflow/quicflow/internal/release"
)

const (
	unitDir     = "/etc/systemd/system"
	serviceName = "quicflow-agent"
	// systemctlTimeout bounds each call of systemctl.
	systemctlTimeout = 30 * time.Second
)

// unit is the service of an agent; see deploy/systemd/quicflow-agent.service for what it looks like.
const unit = `# QuicFlow's agent. Written by "quic-client service install".
[Unit]
Description=QuicFlow agent
Documentation=https://github.com/quicflow/quicflow
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=%s
ExecReload=/bin/kill -HUP $MAINPID
# Scripts go on when the agent stops, is restarted or upgraded; it finds them again.
KillMode=process
Restart=always
RestartSec=2s
TimeoutStopSec=15s

[Install]
WantedBy=multi-user.target
`

// service are the flags of the commands that make the agent a service of systemd.
type service struct {
	*options
	unit   string
	dryRun bool
	out    io.Writer
}

func (o *options) serviceCommand() *cobra.Command {
	s := &service{options: o}
	parent := &cobra.Command{
		Use:   "service",
		Short: "Make the agent a service of systemd, or end that",
		Args:  cobra.NoArgs,
	}
	install := &cobra.Command{
		Use:   "install",
		Short: "Write a unit that starts the agent with the flags given here, and start it",
		Long: `Write a unit that starts the agent with the flags given here, and start it.

Join first ("quic-client join"): a join token is good once, and does not belong into a unit. What runs is this program, where it
lies now.`,
		Example: `  QUIC_JOIN_TOKEN=qfj1.… quic-client join --server hub.example.com:8474 --id web-1
  quic-client service install --server hub.example.com:8474 --id web-1 --label zone=eu`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s.out = cmd.OutOrStdout()
			return s.install(cmd.Context())
		},
	}
	uninstall := &cobra.Command{
		Use:   "uninstall",
		Short: "Stop the service and remove its unit; the agent's data stays",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s.out = cmd.OutOrStdout()
			return s.uninstall(cmd.Context())
		},
	}
	for _, cmd := range []*cobra.Command{install, uninstall} {
		cmd.Flags().BoolVar(&s.dryRun, "dry-run", false, "print what would be done, and do nothing")
		cmd.Flags().StringVar(&s.unit, "unit", serviceName, "name of the unit")
	}
	parent.AddCommand(install, uninstall)
	return parent
}

func (s *service) path() (string, error) {
	if s.unit == "" || strings.ContainsAny(s.unit, "/\x00 ") {
		return "", fmt.Errorf("--unit: %q is not the name of a unit", s.unit)
	}
	return filepath.Join(unitDir, strings.TrimSuffix(s.unit, ".service")+".service"), nil
}

func (s *service) install(ctx context.Context) error {
	path, err := s.path()
	if err != nil {
		return err
	}
	text, err := s.text()
	if err != nil {
		return err
	}
	if s.dryRun {
		_, err := fmt.Fprintf(s.out, "# %s\n%s\n# systemctl daemon-reload\n# systemctl enable --now %s\n", path, text, filepath.Base(path))
		return err
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write unit: %w", err)
	}
	if err := systemctl(ctx, s.out, "daemon-reload"); err != nil {
		return err
	}
	return systemctl(ctx, s.out, "enable", "--now", filepath.Base(path))
}

func (s *service) uninstall(ctx context.Context) error {
	path, err := s.path()
	if err != nil {
		return err
	}
	if s.dryRun {
		_, err := fmt.Fprintf(s.out, "# systemctl disable --now %s\n# rm %s\n# systemctl daemon-reload\n", filepath.Base(path), path)
		return err
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return release.NotFound("unit", path)
	}
	if err := systemctl(ctx, s.out, "disable", "--now", filepath.Base(path)); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove unit: %w", err)
	}
	return systemctl(ctx, s.out, "daemon-reload")
}

// text is the unit: this program, and the flags that were given.
func (s *service) text() (string, error) {
	if s.token != "" || s.tokenFile != "" {
		return "", errors.New("a join token does not belong into a unit: join first, with quic-client join")
	}
	if err := release.ValidateClientID(s.id); err != nil {
		return "", err
	}
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	dir, err := s.directory()
	if err != nil {
		return "", err
	}
	args := []string{program}
	if s.serverGiven {
		for _, server := range s.servers {
			args = append(args, "--server", server)
		}
	}
	args = append(args, "--id", s.id, "--data-dir", dir)
	for _, name := range slices.Sorted(maps.Keys(s.labels)) {
		args = append(args, "--label", name+"="+s.labels[name])
	}
	if s.insecure {
		args = append(args, "--insecure")
	}
	if s.maxSteps != defaultMaxSteps {
		args = append(args, "--max-steps", fmt.Sprint(s.maxSteps))
	}
	if s.maxJournal != defaultMaxJournal {
		args = append(args, "--max-journal", fmt.Sprint(s.maxJournal))
	}
	if s.maxLog != defaultMaxLog {
		args = append(args, "--max-log", fmt.Sprint(s.maxLog))
	}
	if s.artifactCache != defaultCache {
		args = append(args, "--artifact-cache", fmt.Sprint(s.artifactCache))
	}
	if s.logLevel != defaultLogLevel {
		args = append(args, "--log-level", s.logLevel)
	}
	for i, arg := range args {
		if strings.ContainsAny(arg, "\n\r\x00") {
			return "", fmt.Errorf("%q cannot stand in a unit", arg)
		}
		args[i] = quoted(arg)
	}
	return fmt.Sprintf(unit, strings.Join(args, " ")), nil
}

// quoted writes an argument as systemd reads it (systemd.service(5), "Command lines").
func quoted(arg string) string {
	escaped := strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`, `$`, `$$`).Replace(arg)
	if arg == "" || strings.ContainsAny(arg, " \t'\"\\;") {
		return `"` + escaped + `"`
	}
	return escaped
}

func systemctl(ctx context.Context, out io.Writer, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, systemctlTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "systemctl", args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("systemctl %s: %w", strings.Join(args, " "), err)
	}
	return nil
}
