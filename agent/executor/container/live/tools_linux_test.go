package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/release"
)

// tools are executor.Tools on files of a step's directory, without a process of their own.
type tools struct {
	step   *executor.Step
	onLine func(line string)
	report executor.Running
}

var _ executor.Tools = (*tools)(nil)

func (s *tools) path(name string) string { return filepath.Join(s.step.Dir, name) }

func (s *tools) appender(name string) io.Writer {
	return writer(func(p []byte) (int, error) {
		f, err := os.OpenFile(s.path(name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		return f.Write(p)
	})
}

type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func (s *tools) Printf(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	fmt.Fprintln(s.appender("log"), line)
	if s.onLine != nil {
		s.onLine(line)
	}
}

func (s *tools) Stdout() io.Writer { return s.appender("stdout") }
func (s *tools) Stderr() io.Writer { return s.appender("stderr") }

func (s *tools) Script(ctx context.Context, script executor.Script) error {
	if script.Text == "" {
		return nil
	}
	var code int
	if ended, err := s.Kept("ended."+script.Name, &code); err != nil || ended {
		if err == nil && code != 0 {
			err = &executor.ExitError{Name: script.Name, Code: code}
		}
		return err
	}
	if begun, err := s.Kept("begun."+script.Name, new(bool)); err != nil || begun {
		return errors.Join(err, executor.ErrUnknown)
	}
	if err := s.Keep("begun."+script.Name, true); err != nil {
		return err
	}
	interpreter := strings.Fields(script.Interpreter)
	cmd := exec.CommandContext(ctx, interpreter[0], append(interpreter[1:], "-c", script.Text)...)
	for name, value := range script.Env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Stdout, cmd.Stderr = s.Stdout(), s.Stderr()
	err := cmd.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if cmd.ProcessState == nil {
		return err
	}
	code = cmd.ProcessState.ExitCode()
	if err := s.Keep("ended."+script.Name, code); err != nil {
		return err
	}
	if code != 0 {
		return &executor.ExitError{Name: script.Name, Code: code}
	}
	return nil
}

func (s *tools) Program(context.Context, executor.Program) error {
	return errors.New("not for containers")
}

func (s *tools) Artifact(context.Context, string) (string, error) {
	return "", errors.New("not for containers")
}

func (s *tools) Health(ctx context.Context, env map[string]string) error {
	h := s.step.Config.Container.Health
	if h == nil {
		return nil
	}
	address, err := release.ExpandText(h.HTTP, func(name string) (release.Value, bool) {
		value, ok := env[name]
		return release.Value{Text: value}, ok
	}, true)
	if err != nil {
		return err
	}
	tick := time.NewTicker(h.Interval.Std())
	defer tick.Stop()
	for failures := 0; ; {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return err
		}
		answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: h.Timeout.Std()}).Do(request)
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode < 400 {
				return nil
			}
			err = fmt.Errorf("%s", answer.Status)
		}
		if failures++; failures >= h.Retries {
			return fmt.Errorf("health check: %w", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *tools) Keep(name string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path(name+".tmp"), text, 0o600); err != nil {
		return err
	}
	return os.Rename(s.path(name+".tmp"), s.path(name))
}

func (s *tools) Kept(name string, value any) (bool, error) {
	text, err := os.ReadFile(s.path(name))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(text, value)
	}
	return err == nil, err
}

func (s *tools) Environment(base bool) map[string]string {
	env := map[string]string{
		"QUICFLOW_PROJECT": s.step.Project, "QUICFLOW_VERSION": s.step.Version, "QUICFLOW_TARGET": s.step.Host.ClientID,
		"QUICFLOW_PREVIOUS_VERSION": s.step.Previous, "QUICFLOW_RELEASE": s.step.TaskID,
	}
	if base {
		maps.Copy(env, map[string]string{"PATH": os.Getenv("PATH")})
	}
	return env
}

func (s *tools) Report(running executor.Running) {
	s.report = running
	_ = s.Keep("report", running)
}
