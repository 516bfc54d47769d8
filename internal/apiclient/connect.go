package apiclient

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

// DefaultServer is where a server listens that was not told otherwise.
const DefaultServer = "http://localhost:8475"

// Config says how to reach a server.
type Config struct {
	Server string // URL. Defaults to DefaultServer.
	Token  string // API token. Defaults to none: only health can be asked.
	CAFile string // PEM file with the authorities to trust. Defaults to the system's.

	// AnswerTimeout is how long the server may take until it begins to answer. Defaults to a minute.
	AnswerTimeout time.Duration
}

// New makes a client. It connects with the first request.
func New(config Config) (*API, error) {
	if config.Server == "" {
		config.Server = DefaultServer
	}
	u, err := url.Parse(config.Server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("server %q is not a URL such as %s", config.Server, DefaultServer)
	}
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: cmp.Or(config.AnswerTimeout, time.Minute),
		IdleConnTimeout:       time.Minute,
		ForceAttemptHTTP2:     true,
	}
	if config.CAFile != "" {
		pem, err := os.ReadFile(config.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read CA certificate: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no PEM certificate", config.CAFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	options := []ClientOption{WithHTTPClient(&http.Client{Transport: onceMore{transport}})}
	if config.Token != "" {
		bearer := "Bearer " + strings.TrimSpace(config.Token)
		options = append(options, WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
			r.Header.Set("Authorization", bearer)
			return nil
		}))
	}
	return NewClient(config.Server, options...)
}

// onceMore repeats a request that changes nothing if the connection broke before there was an answer, as when the server is
// restarted at that moment. http.Transport does so only on a connection that it had used before.
type onceMore struct{ http.RoundTripper }

func (o onceMore) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := o.RoundTripper.RoundTrip(r)
	if r.Method == http.MethodGet && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)) {
		return o.RoundTripper.RoundTrip(r)
	}
	return response, err
}
