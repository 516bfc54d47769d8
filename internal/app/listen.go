package app

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/quicflow/quicflow/internal/config"
)

// listen opens a TCP port.
func listen(key, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", config.Loopback(addr))
	if err != nil {
		return nil, portError(key, config.Loopback(addr), err)
	}
	return l, nil
}

// portError says which key to change.
func portError(key, addr string, err error) error {
	variable := "QUIC_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s: %s is taken by another program: stop it, or set %s (or %s) to another address", key, addr, key, variable)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s: this user may not listen on %s: set %s (or %s) to another address", key, addr, key, variable)
	}
	return fmt.Errorf("%s: cannot listen on %s: %w", key, addr, err)
}

// apiTLS reads the certificate of the API, if there is one.
func apiTLS(c config.Server) (*tls.Config, error) {
	if c.APITLSCertFile == "" {
		return nil, nil
	}
	certificate, err := tls.LoadX509KeyPair(c.APITLSCertFile, c.APITLSKeyFile)
	if err != nil {
		return nil, fmt.Errorf("server.api_tls_cert_file: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}}, nil
}

// reachable gives an address under which this machine reaches a listener.
func reachable(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
