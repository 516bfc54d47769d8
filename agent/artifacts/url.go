package artifacts

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

const (
	maxRedirects = 5
	dialTimeout  = 10 * time.Second
	// answerTimeout bounds the wait for the beginning of an answer.
	answerTimeout = 30 * time.Second
	// urlStall is how long nothing may come of a content.
	urlStall = time.Minute
)

// newClient makes the client for URLs.
func newClient(own *http.Client) *http.Client {
	client := &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: answerTimeout,
		DisableKeepAlives:     true,
		DisableCompression:    true, // what is compressed on the way cannot be resumed
		ForceAttemptHTTP2:     true,
	}}
	if own != nil {
		copied := *own
		client = &copied
	}
	client.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return permanentError{fmt.Errorf("it redirects more than %d times", maxRedirects)}
		}
		if r.URL.Scheme != "http" && r.URL.Scheme != "https" {
			return permanentError{fmt.Errorf("it redirects to %s:, and only http and https are followed", r.URL.Scheme)}
		}
		if via[0].URL.Scheme == "https" && r.URL.Scheme == "http" {
			return permanentError{errors.New("it redirects from https to http")}
		}
		r.Header.Del("Referer") // it may carry secrets
		return nil
	}
	return client
}

// parseURL checks a URL. Errors do not show it, as it may carry secrets.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, release.Invalid("url", "it is not an http or https URL")
	}
	return u, nil
}

// urlError is what a URL has brought instead of a content. Who deploys sees the URL without user, password and query; the step's secrets
// are taken out of that. The agent's own log, which knows no secrets, gets but the host.
type urlError struct {
	url   *url.URL
	colon string // between the URL and the error
	err   error
}

func (e *urlError) Unwrap() error { return e.err }

func (e *urlError) Error() string {
	return e.url.Scheme + "://" + e.url.Host + e.url.EscapedPath() + e.colon + " " + e.err.Error()
}

// forLog writes an error of a transfer without what may be secret.
func forLog(err error) string {
	if at := (*urlError)(nil); errors.As(err, &at) {
		return at.url.Scheme + "://" + at.url.Host + at.colon + " " + at.err.Error()
	}
	return err.Error()
}

// openURL asks for the rest of the content, or, of a server that does not know how to resume, for all of it.
func (f *fetch) openURL() (content io.ReadCloser, from, size int64, err error) {
	u, err := parseURL(f.url)
	if err != nil {
		return nil, 0, 0, permanentError{err}
	}
	ctx, cancel := context.WithCancelCause(f.ctx)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		cancel(nil)
		return nil, 0, 0, permanentError{release.Invalid("url", "it is not an http or https URL")}
	}
	if f.have > 0 {
		r.Header.Set("Range", "bytes="+strconv.FormatInt(f.have, 10)+"-")
	}
	answer, err := f.cache.client.Do(r)
	if err != nil {
		cancel(nil)
		return nil, 0, 0, &urlError{u, ":", explainURL(err)}
	}
	from, size, err = f.readHead(answer)
	if err != nil {
		cancel(nil)
		_ = answer.Body.Close()
		return nil, 0, 0, &urlError{u, "", err}
	}
	stalled := &urlError{u, "", fmt.Errorf("sends nothing for %s", urlStall)}
	return &stallReader{body: answer.Body, timer: time.AfterFunc(urlStall, func() { cancel(stalled) }), ctx: ctx, cancel: cancel}, from, size, nil
}

// readHead says what an answer brings.
func (f *fetch) readHead(answer *http.Response) (from, size int64, err error) {
	switch status := answer.StatusCode; {
	case status == http.StatusOK:
		return 0, answer.ContentLength, nil
	case status == http.StatusPartialContent:
		unit, rest, _ := strings.Cut(answer.Header.Get("Content-Range"), " ")
		span, whole, _ := strings.Cut(rest, "/")
		first, _, _ := strings.Cut(span, "-")
		from, err := strconv.ParseInt(first, 10, 64)
		if unit != "bytes" || err != nil || from != f.have {
			return 0, 0, fmt.Errorf("answers with the range %q, and not with that from %d on", answer.Header.Get("Content-Range"), f.have)
		}
		if size, err = strconv.ParseInt(whole, 10, 64); err != nil {
			size = -1
		}
		return from, size, nil
	case status == http.StatusRequestedRangeNotSatisfiable && f.have > 0:
		return 0, 0, ErrOffset
	case status == http.StatusRequestTimeout, status == http.StatusTooManyRequests, status >= 500:
		return 0, 0, fmt.Errorf("answers %s", answer.Status)
	}
	return 0, 0, permanentError{fmt.Errorf("answers %s", answer.Status)}
}

// explainURL leaves the URL out of an error, and says whether there is a point in trying again.
func explainURL(err error) error {
	if failed := (*url.Error)(nil); errors.As(err, &failed) {
		err = failed.Err
	}
	if certificate := (*tls.CertificateVerificationError)(nil); errors.As(err, &certificate) {
		return permanentError{err}
	}
	return err
}

// stallReader ends a content of which nothing comes.
type stallReader struct {
	body   io.ReadCloser
	timer  *time.Timer
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (s *stallReader) Read(p []byte) (int, error) {
	s.timer.Reset(urlStall)
	n, err := s.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = cmp.Or(context.Cause(s.ctx), err)
	}
	return n, err
}

func (s *stallReader) Close() error {
	s.timer.Stop()
	s.cancel(nil)
	return s.body.Close()
}
