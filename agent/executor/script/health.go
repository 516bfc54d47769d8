package script

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

// health is a health check whose references have been replaced. One of HTTP, TCP and Exec is set.
type health struct {
	HTTP        string        `json:"http,omitempty"`
	TCP         string        `json:"tcp,omitempty"`
	Exec        string        `json:"exec,omitempty"`
	Interval    time.Duration `json:"interval"`
	Timeout     time.Duration `json:"timeout"`
	Retries     int           `json:"retries"`
	StartPeriod time.Duration `json:"start_period"`
}

func newHealth(check *release.Health, env map[string]string) (*health, error) {
	if check == nil {
		return nil, nil
	}
	c := check.WithDefaults()
	h := &health{Interval: c.Interval.Std(), Timeout: c.Timeout.Std(), Retries: c.Retries, StartPeriod: c.StartPeriod.Std()}
	var err error
	switch {
	case c.HTTP != "":
		if h.HTTP, err = expand(c.HTTP, env); err == nil {
			err = checkURL(h.HTTP)
		}
	case c.TCP != "":
		if h.TCP, err = expand(c.TCP, env); err == nil {
			_, _, err = net.SplitHostPort(h.TCP)
		}
	default:
		h.Exec, err = expand(c.Exec, env)
	}
	if err != nil {
		return nil, fmt.Errorf("health check: %w", err)
	}
	return h, nil
}

func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil {
		return err
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%q is not an http or https URL", text)
	}
	return nil
}

// checkHealth probes until a probe passes or too many have failed in a row.
func (w *wrapper) checkHealth(ctx context.Context) error {
	h := w.plan.Health
	begin := time.Now()
	for failures := 0; ; {
		err := w.probe(ctx)
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if err == nil {
			w.logHealth("health check passed: %s", h.target())
			return nil
		}
		if time.Since(begin) >= h.StartPeriod {
			failures++
			w.logHealth("health check %d of %d failed: %s", failures, h.Retries, err)
		} else {
			w.logHealth("health check failed, not counted yet: %s", err)
		}
		if failures >= h.Retries {
			return fmt.Errorf("health check failed: %w", err)
		}
		select {
		case <-time.After(h.Interval):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// logHealth makes its line durable: a check that goes on after a power cut must not write other lines to positions that
// the hub has stored already.
func (w *wrapper) logHealth(format string, args ...any) {
	w.log.Printf(format, args...)
	_, _ = w.log.End()
}

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

func (w *wrapper) probe(ctx context.Context) error {
	h := w.plan.Health
	limit := fmt.Errorf("%s: no answer within %s", h.target(), h.Timeout)
	ctx, cancel := context.WithTimeoutCause(ctx, h.Timeout, limit)
	defer cancel()
	switch {
	case h.HTTP != "":
		return h.probeHTTP(ctx)
	case h.TCP != "":
		return h.probeTCP(ctx)
	default:
		return w.probeExec(ctx)
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
func (w *wrapper) probeExec(ctx context.Context) error {
	cmd, err := w.command(scriptText{"health", w.plan.Health.Exec})
	if err != nil {
		return err
	}
	output, err := os.CreateTemp(string(w.dir), "health-output-")
	if err != nil {
		return err
	}
	defer os.Remove(output.Name())
	defer output.Close()
	cmd.Stdout, cmd.Stderr = output, output
	code, err := w.supervise(ctx, cmd, func() {})
	if err != nil {
		return err
	}
	if code == 0 {
		return nil
	}
	tail := make([]byte, maxTail)
	info, err := output.Stat()
	if err != nil {
		return err
	}
	n, _ := output.ReadAt(tail, max(0, info.Size()-maxTail))
	return exitError(code, lastLine(tail[:n]))
}
