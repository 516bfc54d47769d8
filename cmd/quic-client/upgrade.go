package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/quicflow/quicflow/agent"
	"github.com/quicflow/quicflow/internal/durable"
)

// The files of an upgrade. The program's own directory has the new one beside it, and the previous one; the data directory
// has what is asked of the agent that runs, and what came of it.
const (
	newSuffix      = ".new"
	previousSuffix = ".previous"
	requestFile    = "upgrade.json"
	outcomeFile    = "upgrade-outcome.json"
)

const (
	versionTimeout        = 10 * time.Second // for a program to say its version
	defaultUpgradeTimeout = time.Minute
	// upgradeSlack is how much longer than its time an upgrade may take to say what came of it.
	upgradeSlack = 30 * time.Second
	upgradePoll  = 100 * time.Millisecond
)

// upgradeRequest is what the command asks of the agent.
type upgradeRequest struct {
	ID      string        `json:"id"`
	Program string        `json:"program"` // to be replaced
	Binary  string        `json:"binary"`  // its successor, in the same directory
	Timeout time.Duration `json:"timeout"` // for an accepted session
}

// upgradeOutcome is what came of it.
type upgradeOutcome struct {
	ID    string `json:"id"`
	Error string `json:"error,omitempty"` // why the previous program runs on
}

// upgrade are the flags of the command.
type upgrade struct {
	*options
	binary  string
	sha256  string
	timeout time.Duration
	out     io.Writer
}

func (o *options) upgradeCommand() *cobra.Command {
	u := &upgrade{options: o}
	cmd := &cobra.Command{
		Use:   "upgrade --binary FILE",
		Short: "Put another version in this program's place, while scripts run on",
		Long: `Put another version in this program's place, while scripts run on.

The agent that runs (see --id, --data-dir) tries the new program: it has to get a session that the server accepts. Only then it
takes the old one's place, which is kept beside it as PROGRAM.previous, and the agent goes on as the new one, in the same process.
Otherwise the old one goes on as before. If no agent runs, the program is replaced at once.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			u.out = cmd.OutOrStdout()
			return u.run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&u.binary, "binary", "", "the new program")
	cmd.Flags().StringVar(&u.sha256, "sha256", "", "what it must hash to, in hexadecimal")
	cmd.Flags().DurationVar(&u.timeout, "timeout", defaultUpgradeTimeout, "how long the new program may take to get a session")
	_ = cmd.MarkFlagRequired("binary")
	return cmd
}

func (u *upgrade) run(ctx context.Context) error {
	if u.timeout <= 0 {
		return fmt.Errorf("--timeout: %s is not more than 0", u.timeout)
	}
	dir, err := u.directory()
	if err != nil {
		return err
	}
	pid, err := agent.Running(dir)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if pid != 0 {
		program, err = programOf(pid)
	}
	if err != nil {
		return err
	}
	r := upgradeRequest{ID: uuid.NewString(), Program: program, Binary: program + newSuffix, Timeout: u.timeout}
	if err := u.place(r.Binary); err != nil {
		return err
	}
	name, err := versionOf(ctx, r.Binary)
	if err != nil {
		_ = os.Remove(r.Binary)
		return err
	}
	if pid == 0 {
		if err := r.swap(); err != nil {
			return err
		}
		_, err = fmt.Fprintf(u.out, "%s is now %s; no agent runs in %s\n", program, name, dir)
		return err
	}
	if err := u.ask(ctx, dir, pid, r); err != nil {
		return err
	}
	_, err = fmt.Fprintf(u.out, "%s is now %s, and the agent goes on as that\n", program, name)
	return err
}

// place copies the new program beside the old one, and checks what it copied.
func (u *upgrade) place(path string) (err error) {
	from, err := os.Open(u.binary)
	if err != nil {
		return fmt.Errorf("--binary: %w", err)
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return fmt.Errorf("put the new program beside the old one: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	hash := sha256.New()
	_, err = io.Copy(io.MultiWriter(to, hash), from)
	if err := errors.Join(err, to.Chmod(0o755), to.Sync(), to.Close()); err != nil {
		return fmt.Errorf("put the new program beside the old one: %w", err)
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); u.sha256 != "" && !strings.EqualFold(u.sha256, sum) {
		return fmt.Errorf("--sha256: %s hashes to %s", u.binary, sum)
	}
	return nil
}

// versionOf makes sure that a program is an agent that runs on this host.
func versionOf(ctx context.Context, program string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	text, err := exec.CommandContext(ctx, program, "version").Output()
	if err != nil {
		return "", fmt.Errorf("--binary: it does not tell its version: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if !strings.HasPrefix(line, "quic-client ") {
		return "", fmt.Errorf("--binary: it says %q, so it is no quic-client", line)
	}
	return line, nil
}

// ask lets the agent try the new program, and waits for what comes of that.
func (u *upgrade) ask(ctx context.Context, dir string, pid int, r upgradeRequest) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.Timeout+upgradeSlack, errors.New("the agent does not say what came of the upgrade; see its log"))
	defer cancel()
	if err := writeJSON(filepath.Join(dir, requestFile), r); err != nil {
		return err
	}
	if err := syscall.Kill(pid, upgradeSignal); err != nil {
		_ = os.Remove(filepath.Join(dir, requestFile))
		_ = os.Remove(r.Binary)
		return fmt.Errorf("signal the agent: %w", err)
	}
	ticker := time.NewTicker(upgradePoll) // nobody tells when a file is written
	defer ticker.Stop()
	for {
		var outcome upgradeOutcome
		if readJSON(filepath.Join(dir, outcomeFile), &outcome) == nil && outcome.ID == r.ID {
			if outcome.Error != "" {
				return fmt.Errorf("the previous version runs on: %s", outcome.Error)
			}
			return nil
		}
		if syscall.Kill(pid, 0) != nil {
			return errors.New("the agent ended meanwhile; see its log")
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			if os.Remove(filepath.Join(dir, requestFile)) == nil { // the agent has not even seen it
				_ = os.Remove(r.Binary)
			}
			return context.Cause(ctx)
		}
	}
}

// swap keeps the program as the previous one, and puts its successor in its place. At no moment there is none.
func (r *upgradeRequest) swap() error {
	previous := r.Program + previousSuffix
	if err := os.Remove(previous); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("keep the previous program: %w", err)
	}
	if err := os.Link(r.Program, previous); err != nil {
		return fmt.Errorf("keep the previous program: %w", err)
	}
	if err := os.Rename(r.Binary, r.Program); err != nil {
		return fmt.Errorf("replace the program: %w", err)
	}
	return durable.SyncDir(filepath.Dir(r.Program))
}

func writeJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err == nil {
		err = os.WriteFile(path+"~", text, 0o600)
	}
	if err == nil {
		err = os.Rename(path+"~", path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func readJSON(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(bytes.TrimSpace(text), v)
}
