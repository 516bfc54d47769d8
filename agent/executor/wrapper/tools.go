package wrapper

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/durable"
	"github.com/quicflow/quicflow/internal/lazyregexp"
	"github.com/quicflow/quicflow/internal/release"
)

// maxReport bounds what a step reports to run, in bytes of JSON.
const maxReport = 8 << 10

// tools are those of one wrapper.
type tools struct{ w *wrapper }

var _ executor.Tools = tools{}

// Printf makes its line durable: Work may be called again after a power cut, and must not write other lines to positions that the
// hub has stored already.
func (t tools) Printf(format string, args ...any) {
	t.w.printf(format, args...)
	_, _ = t.w.log.End()
}

func (w *wrapper) printf(format string, args ...any) {
	w.log.Printf("%s", w.hide.Replace(fmt.Sprintf(format, args...)))
}

func (t tools) Stdout() io.Writer { return t.w.stdout }

func (t tools) Stderr() io.Writer { return t.w.stderr }

var keyForm = lazyregexp.New(`^[a-z0-9][a-z0-9_.-]{0,63}$`)

func checkKey(name string) error {
	if !keyForm.MatchString(name) {
		return fmt.Errorf("%q is not a name: 1 to 64 small letters, digits, dots, dashes and underscores", name)
	}
	return nil
}

func (t tools) Keep(name string, value any) error {
	if err := checkKey(name); err != nil {
		return err
	}
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	return durable.WriteFile(t.w.dir.path(keptPrefix+name), text, 0o600)
}

func (t tools) Kept(name string, value any) (bool, error) {
	if err := checkKey(name); err != nil {
		return false, err
	}
	text, err := os.ReadFile(t.w.dir.path(keptPrefix + name))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, json.Unmarshal(text, value)
}

func (t tools) Environment(base bool) map[string]string {
	env := map[string]string{}
	if base {
		env = executor.BaseVariables()
		if user := t.w.user(); user != "" {
			if who, err := FindUser(user); err == nil && who != nil {
				who.setEnvironment(env)
			}
		}
	}
	maps.Copy(env, t.w.step.Variables())
	return env
}

// user is the one that the step's scripts run as, empty for the agent's own.
func (w *wrapper) user() string {
	switch c := w.step.Config; {
	case c.Script != nil:
		return c.Script.User
	case c.Git != nil:
		return c.Git.User
	}
	return ""
}

// workDir is where the step's health check runs a script.
func (w *wrapper) workDir() string {
	dir := ""
	switch c := w.step.Config; {
	case c.Script != nil:
		dir = c.Script.WorkDir
	case c.Git != nil:
		dir = c.Git.Path
	}
	if dir == "" {
		dir = w.step.ProjectDir()
	}
	return dir
}

func (w *wrapper) interpreter() string {
	switch c := w.step.Config; {
	case c.Script != nil:
		return c.Script.Interpreter
	case c.Git != nil:
		return c.Git.Interpreter
	}
	return ""
}

func (t tools) Report(running executor.Running) {
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	t.w.running = &running
}

// report is the JSON of what runs now; what is long is left out until the rest fits.
func (w *wrapper) report() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running == nil {
		return nil
	}
	running := *w.running
	running.Reason = w.hide.Replace(running.Reason) // before a half of a secret could be left of it
	hide := hideSecrets(w.plan.Step.Secrets, inJSON)
	for {
		text, err := json.Marshal(running)
		if err != nil {
			fmt.Fprintln(os.Stderr, "what runs cannot be told:", err)
			return nil
		}
		text = []byte(hide.Replace(string(text)))
		switch {
		case len(text) <= maxReport:
			return text
		case len(running.Objects) > 0:
			running.Objects = running.Objects[:len(running.Objects)/2]
		case len(running.Details) > 0:
			running.Details = nil
		case running.Reason != "":
			running.Reason = strings.ToValidUTF8(running.Reason[:len(running.Reason)/2], "")
		default:
			fmt.Fprintln(os.Stderr, "what runs takes too long to tell")
			return nil
		}
	}
}

// inJSON is a text as it is within a string of JSON.
func inJSON(text string) string {
	encoded, err := json.Marshal(text)
	if err != nil {
		return text
	}
	return string(encoded[1 : len(encoded)-1])
}

// inURL is a text as it is within the path of a URL that is shown.
func inURL(text string) string { return (&url.URL{Path: text}).EscapedPath() }

func (t tools) Artifact(ctx context.Context, digest string) (string, error) {
	if raw, err := hex.DecodeString(digest); err != nil || len(raw) != sha256.Size {
		return "", fmt.Errorf("%q is not a SHA-256", digest)
	}
	digest = strings.ToLower(digest)
	for _, path := range []string{t.w.dir.artifact(digest), filepath.Join(t.w.step.Host.DataDir, "artifacts", digest)} {
		file, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("artifact %.12s…: %w", digest, err)
		}
		hash := sha256.New()
		_, err = io.Copy(hash, &cancellable{ctx, file})
		_ = file.Close()
		switch {
		case err != nil:
			return "", fmt.Errorf("artifact %.12s…: %w", digest, err)
		case hex.EncodeToString(hash.Sum(nil)) != digest:
			return "", fmt.Errorf("artifact %.12s…: its content in the agent's cache has changed", digest)
		}
		return path, nil
	}
	return "", fmt.Errorf("artifact %.12s… is not in the agent's cache", digest)
}

// cancellable is a reader that ends with a context.
type cancellable struct {
	ctx context.Context
	io.Reader
}

func (c *cancellable) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.Reader.Read(p)
}

// ending is how a script ended.
type ending struct {
	Code    int           `json:"code"`
	Line    string        `json:"line,omitempty"`
	Stopped string        `json:"stopped,omitempty"` // cancelled, timed_out or error
	Reason  string        `json:"reason,omitempty"`
	After   time.Duration `json:"after,omitempty"`
}

func endingOf(code int, line string, err error) ending {
	var c *executor.Cancelled
	var late *executor.TimedOut
	switch {
	case err == nil:
		return ending{Code: code, Line: line}
	case errors.As(err, &c):
		return ending{Stopped: "cancelled", Reason: c.Reason}
	case errors.As(err, &late):
		return ending{Stopped: "timed_out", After: late.After}
	}
	return ending{Stopped: "error", Reason: err.Error()}
}

func (e ending) err(name string) error {
	switch {
	case e.Stopped == "cancelled":
		return &executor.Cancelled{Reason: e.Reason}
	case e.Stopped == "timed_out":
		return &executor.TimedOut{After: e.After}
	case e.Stopped != "":
		return named(name, errors.New(e.Reason))
	case e.Code != 0:
		return &executor.ExitError{Name: name, Code: e.Code, Line: e.Line}
	}
	return nil
}

func named(name string, err error) error {
	if name == executor.MainScript {
		return err
	}
	return fmt.Errorf("%s: %w", name, err)
}

func (t tools) Script(ctx context.Context, s executor.Script) error {
	w := t.w
	if s.Text == "" {
		return nil
	}
	if err := checkKey(s.Name); err != nil {
		return err
	}
	var end ending
	text, err := os.ReadFile(w.dir.path(s.Name + scriptEnded))
	switch {
	case err == nil:
		if err := json.Unmarshal(text, &end); err != nil {
			return fmt.Errorf("how %s ended cannot be read: %w", s.Name, err)
		}
		return end.err(s.Name)
	case !errors.Is(err, os.ErrNotExist):
		return err
	case w.dir.has(s.Name+scriptBegan) || w.again && w.step.Command != nil:
		return fmt.Errorf("the host restarted, or the step's wrapper was killed, while the %s ran: %w", s.Name, executor.ErrUnknown)
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	// All that can be found wrong before the script begins leaves no mark.
	process, err := w.script(s)
	if err != nil {
		return named(s.Name, err)
	}
	if w.step.Command != nil { // it has one script, so the step's own mark is the script's
		code, line, err := w.runProcess(ctx, process)
		return endingOf(code, line, err).errOf(s.Name, err)
	}
	if first, err := w.dir.mark(s.Name+scriptBegan, nowText()); err != nil || !first {
		return errors.Join(err, fmt.Errorf("%s cannot begin: its mark cannot be made", s.Name))
	}
	w.printf("%s begins", s.Name)
	code, line, err := w.runProcess(ctx, process)
	end = endingOf(code, line, err)
	// What the script wrote is made durable before its end is, so that positions that the hub knows keep their meaning.
	if _, err := w.log.End(); err != nil {
		fmt.Fprintln(os.Stderr, "the log is not complete:", err)
	}
	if text, err = json.Marshal(end); err != nil {
		return err
	}
	if err := durable.WriteFile(w.dir.path(s.Name+scriptEnded), text, 0o600); err != nil {
		return fmt.Errorf("the end of %s cannot be noted: %w", s.Name, err)
	}
	return end.errOf(s.Name, err)
}

// errOf is err, but for the original of an error that is at hand.
func (e ending) errOf(name string, original error) error {
	if e.Stopped != "" && original != nil {
		if e.Stopped == "error" {
			return named(name, original)
		}
		return original
	}
	return e.err(name)
}

// script prepares a script's process.
func (w *wrapper) script(s executor.Script) (*process, error) {
	p := &process{name: s.Name, dir: s.Dir, env: s.Env, stdout: w.stdout, stderr: w.stderr, limits: s.Limits}
	var err error
	if p.user, err = FindUser(s.User); err != nil {
		return nil, err
	}
	if err := w.makeDir(p); err != nil {
		return nil, err
	}
	if err := p.checkLimits(w); err != nil {
		return nil, err
	}
	file := w.dir.path(s.Name)
	if err := os.WriteFile(file, []byte(s.Text), 0o700); err != nil {
		return nil, fmt.Errorf("cannot write the script: %w", err)
	}
	words := strings.Fields(s.Interpreter)
	if len(words) == 0 {
		words = []string{release.DefaultInterpreter}
	}
	p.path = words[0]
	if p.user == nil {
		p.args = append(words[1:], file)
		return p, nil
	}
	// Another user may not enter the step's directory, but read the file where it is open.
	if err := os.Chmod(file, 0o755); err != nil {
		return nil, fmt.Errorf("cannot write the script: %w", err)
	}
	if p.script, err = os.Open(file); err != nil {
		return nil, fmt.Errorf("cannot read the script: %w", err)
	}
	p.args = append(words[1:], "/dev/fd/3")
	return p, nil
}

// makeDir makes the work directory of a process if it is missing, for its user.
func (w *wrapper) makeDir(p *process) error {
	if p.dir == "" {
		p.dir = w.step.ProjectDir()
	}
	if _, err := os.Stat(p.dir); !errors.Is(err, os.ErrNotExist) {
		return nil // where it is no directory, the process says so
	}
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return fmt.Errorf("cannot make the work directory: %w", err)
	}
	if p.user != nil {
		if err := os.Chown(p.dir, int(p.user.UID), int(p.user.GID)); err != nil {
			return fmt.Errorf("cannot make the work directory: %w", err)
		}
	}
	return nil
}

func (t tools) Program(ctx context.Context, program executor.Program) error {
	w := t.w
	p := &process{
		name: filepath.Base(program.Path), path: program.Path, args: program.Args, dir: program.Dir, env: program.Env, stdin: program.Stdin,
		stdout: w.stdout, stderr: w.stderr, ends: true,
	}
	if program.Output != nil {
		p.stdout, p.stderr = program.Output, program.Output
	}
	if p.env == nil {
		p.env = t.Environment(true)
	}
	var err error
	if p.user, err = FindUser(program.User); err != nil {
		return err
	}
	if err := w.makeDir(p); err != nil {
		return err
	}
	code, line, err := w.runProcess(ctx, p)
	if program.Output == nil {
		_, _ = w.log.End()
	}
	if err != nil {
		if context.Cause(ctx) != nil && errors.Is(err, context.Cause(ctx)) {
			return err
		}
		return fmt.Errorf("%s: %w", p.name, err)
	}
	return ending{Code: code, Line: line}.err(p.name)
}

func (t tools) Health(ctx context.Context, env map[string]string) error {
	_, _, check := t.w.step.Config.Common()
	if check == nil {
		return nil
	}
	left := t.w.clock.pause()
	defer t.w.clock.goOn()
	// For the next wrapper, should this one die; it need not survive the host.
	_ = os.WriteFile(t.w.dir.path(spentFile), []byte((t.w.plan.timeout() - left).String()), 0o600)
	all := t.Environment(true)
	maps.Copy(all, env)
	h, err := executor.ExpandHealth(*check, all)
	if err != nil {
		return err
	}
	return (&health{Health: h, w: t.w, env: all}).check(ctx)
}
