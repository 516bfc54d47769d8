package wrapper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/release"
)

// health is a health check whose references have been replaced.
type health struct {
	release.Health
	w   *wrapper
	env map[string]string
}

// check probes until a probe passes or too many have failed in a row.
func (h *health) check(ctx context.Context) error {
	begin := time.Now()
	for failures := 0; ; {
		err := h.probe(ctx)
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if err == nil {
			h.log("health check passed: %s", h.target())
			return nil
		}
		if time.Since(begin) >= h.StartPeriod.Std() {
			failures++
			h.log("health check %d of %d failed: %s", failures, h.Retries, err)
		} else {
			h.log("health check failed, not counted yet: %s", err)
		}
		if failures >= h.Retries {
			return fmt.Errorf("health check failed: %w", err)
		}
		select {
		case <-time.After(h.Interval.Std()):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (h *health) log(format string, args ...any) { tools{h.w}.Printf(format, args...) }

func (h *health) target() string {
	switch {
	case h.HTTP != "":
		return "GET " + redact(h.HTTP)
	case h.TCP != "":
		return "TCP " + h.TCP
	default:
		return "exec"
	}
}

// redact leaves a password out of a URL.
func redact(text string) string {
	if u, err := url.Parse(text); err == nil {
		return u.Redacted()
	}
	return text
}

func (h *health) probe(ctx context.Context) error {
	limit := fmt.Errorf("%s: no answer within %s", h.target(), h.Timeout)
	ctx, cancel := context.WithTimeoutCause(ctx, h.Timeout.Std(), limit)
	defer cancel()
	switch {
	case h.HTTP != "":
		return h.probeHTTP(ctx)
	case h.TCP != "":
		return h.probeTCP(ctx)
	default:
		return h.probeExec(ctx)
	}
}

func (h *health) probeHTTP(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, h.HTTP, nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "quicflow-health")
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		return h.because(ctx, err)
	}
	_ = response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode > 399 {
		return fmt.Errorf("%s: %s", h.target(), response.Status)
	}
	return nil
}

func (h *health) probeTCP(ctx context.Context) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", h.TCP)
	if err != nil {
		return h.because(ctx, err)
	}
	return conn.Close()
}

// because says what a probe's error comes down to.
func (h *health) because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	return fmt.Errorf("%s: %w", h.target(), err)
}

// probeExec leaves the output out of the streams: it is the check's, not the scripts'.
func (h *health) probeExec(ctx context.Context) error {
	p, err := h.w.script(executor.Script{
		Name: "health", Text: h.Exec, Interpreter: h.w.interpreter(), User: h.w.user(), Dir: h.w.workDir(), Env: h.env,
	})
	if err != nil {
		return err
	}
	p.stdout, p.stderr, p.ends = io.Discard, io.Discard, true
	code, line, err := h.w.runProcess(ctx, p) // the last line of both
	_ = os.Remove(h.w.dir.path("health"))     // it may hold a secret now
	if err != nil {
		return err
	}
	if code == 0 {
		return nil
	}
	return &executor.ExitError{Code: code, Line: line}
}
