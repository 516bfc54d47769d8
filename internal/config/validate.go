package config

import (
	"cmp"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

// Validate checks every key by itself and against the others, and reports all that is wrong.
func (c Config) Validate() error {
	v := &validation{}
	c.validateServer(v)
	c.validateTransport(v)
	c.validateWork(v)
	c.validateBackends(v)
	c.validateArtifacts(v)
	return errors.Join(v.errs...)
}

type validation struct{ errs []error }

func (v *validation) fail(field, format string, args ...any) {
	v.errs = append(v.errs, release.Invalid(field, format, args...))
}

func (v *validation) between(field string, n, least, most int) {
	if n < least || n > most {
		v.fail(field, "%d is not between %d and %d", n, least, most)
	}
}

func (v *validation) duration(field string, d Duration, least, most time.Duration) {
	if d.Std() < least || d.Std() > most {
		v.fail(field, "%s is not between %s and %s", d.Std(), least, most)
	}
}

func (v *validation) oneOf(field, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		v.fail(field, "%q is not one of %s", value, strings.Join(slices.DeleteFunc(allowed, func(s string) bool { return s == "" }), ", "))
	}
}

func (v *validation) together(field, value, otherField, other string) {
	if value != "" && other == "" {
		v.fail(otherField, "is needed with %s", field)
	}
}

func (v *validation) address(field, addr string) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		v.fail(field, "%q is not host:port or :port", addr)
		return
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		v.fail(field, "%q is not a port between 0 and 65535", port)
	}
	if strings.ContainsAny(host, " /") {
		v.fail(field, "%q is not a host", host)
	}
}

const (
	maxCount = 10_000_000
	maxBytes = 1 << 40
	day      = 24 * time.Hour
)

func (c Config) validateServer(v *validation) {
	s := c.Server
	v.address("server.addr", s.Addr)
	v.address("server.api_addr", s.APIAddr)
	v.between("server.max_clients", s.MaxClients, 1, maxCount)
	v.between("server.gc_percent", s.GCPercent, 5, 1000)
	v.together("server.api_tls_cert_file", s.APITLSCertFile, "server.api_tls_key_file", s.APITLSKeyFile)
	v.together("server.api_tls_key_file", s.APITLSKeyFile, "server.api_tls_cert_file", s.APITLSCertFile)
	v.together("tls.cert_file", c.TLS.CertFile, "tls.key_file", c.TLS.KeyFile)
	v.together("tls.key_file", c.TLS.KeyFile, "tls.cert_file", c.TLS.CertFile)
	if c.Metrics.Addr != "" {
		v.address("metrics.addr", c.Metrics.Addr)
	}
	if s.APITLSCertFile == "" {
		for field, addr := range map[string]string{"server.api_addr": s.APIAddr, "metrics.addr": c.Metrics.Addr} {
			if !IsLoopback(addr) {
				v.fail(field, "%q can be reached from other machines, which wants server.api_tls_cert_file and server.api_tls_key_file", addr)
			}
		}
	}
	v.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	v.oneOf("log.format", c.Log.Format, "text", "json")
}

func (c Config) validateTransport(v *validation) {
	q, s := c.QUIC, c.Session
	v.duration("quic.max_idle_timeout", q.MaxIdleTimeout, time.Second, day)
	v.between("quic.max_incoming_streams", q.MaxIncomingStreams, 1, maxCount)
	v.between("quic.max_incoming_uni_streams", q.MaxIncomingUniStreams, 1, maxCount)
	v.between("quic.initial_stream_receive_window", q.InitialStreamReceiveWindow, 16<<10, maxBytes)
	v.between("quic.max_stream_receive_window", q.MaxStreamReceiveWindow, q.InitialStreamReceiveWindow, maxBytes)
	v.between("quic.initial_connection_receive_window", q.InitialConnectionReceiveWindow, q.InitialStreamReceiveWindow, maxBytes)
	// Strictly more than a stream's, or one log stream could block the control stream beside it.
	v.between("quic.max_connection_receive_window", q.MaxConnectionReceiveWindow, max(q.InitialConnectionReceiveWindow, q.MaxStreamReceiveWindow+1), maxBytes)

	v.duration("session.heartbeat_interval", s.HeartbeatInterval, 100*time.Millisecond, time.Hour)
	v.duration("session.heartbeat_timeout", s.HeartbeatTimeout, s.HeartbeatInterval.Std()+time.Millisecond, day)
	v.duration("session.heartbeat_check_interval", s.HeartbeatCheckInterval, 100*time.Millisecond, time.Hour)
	v.between("session.max_timeout_count", s.MaxTimeoutCount, 1, 100)
	v.duration("session.offline_grace", s.OfflineGrace, time.Second, day)
	// A stop as a whole is bounded to 15 s, and what the agents sent has to be stored after they left.
	v.duration("session.drain_timeout", s.DrainTimeout, 100*time.Millisecond, 10*time.Second)
	if s.DrainAddress != "" {
		v.address("session.drain_address", s.DrainAddress)
		if strings.HasPrefix(s.DrainAddress, ":") {
			v.fail("session.drain_address", "%q names no host", s.DrainAddress)
		}
	}
	v.between("session.max_handshakes", s.MaxHandshakes, 1, maxCount)
	v.between("session.max_admissions", s.MaxAdmissions, 1, maxCount)
	v.between("session.max_enrolments", s.MaxEnrolments, 1, 100_000)
}

func (c Config) validateWork(v *validation) {
	m, b := c.Message, c.Batch
	v.between("message.worker_count", m.WorkerCount, 10, 200)
	v.between("message.task_queue_size", m.TaskQueueSize, 1, maxCount)
	v.duration("message.handler_timeout", m.HandlerTimeout, time.Second, day)
	v.between("message.max_promises", m.MaxPromises, 1, maxCount)
	v.between("message.promise_warn_threshold", m.PromiseWarnThreshold, 1, max(1, m.MaxPromises))
	v.duration("message.default_message_timeout", m.DefaultMessageTimeout, time.Second, day)

	v.between("batch.max_concurrency", b.MaxConcurrency, 1, 5000)
	v.duration("batch.task_timeout", b.TaskTimeout, time.Second, day)
	v.duration("batch.job_timeout", b.JobTimeout, b.TaskTimeout.Std(), 30*day)
	v.between("batch.max_retries", b.MaxRetries, 0, 100)
	v.duration("batch.retry_interval", b.RetryInterval, 0, time.Hour)
	v.duration("batch.retention", b.Retention, time.Hour, 100*365*day)

	v.between("logs.max_buffered_bytes", c.Logs.MaxBufferedBytes, 1<<20, maxBytes)
	// Two log frames at least; and strictly less than half of the window, or logs could hold up the control stream beside them.
	v.between("logs.credit_bytes", c.Logs.CreditBytes, 64<<10, min(c.Logs.MaxBufferedBytes, c.QUIC.MaxConnectionReceiveWindow/2-1))
	v.duration("logs.retention", c.Logs.Retention, time.Hour, 100*365*day)
	v.between("logs.max_bytes", c.Logs.MaxBytes, 1<<20, maxBytes)
}

func (c Config) validateBackends(v *validation) {
	d, t := c.Database, c.Temporal
	v.oneOf("database.driver", d.Driver, "", "sqlite", "postgres")
	if d.Driver == "sqlite" && (d.Host != "" || d.DSN != "") {
		v.fail("database.driver", "is sqlite, but database.%s is given", cmp.Or(d.given(), "host"))
	}
	if d.Driver == "postgres" && d.Host == "" && d.DSN == "" {
		v.fail("database.host", "is needed with database.driver postgres (or database.dsn)")
	}
	if d.DSN != "" && d.Host != "" {
		v.fail("database.dsn", "and database.host are both given")
	}
	v.between("database.port", d.Port, 1, 65535)
	if d.Host != "" && d.DBName == "" {
		v.fail("database.dbname", "is needed with database.host")
	}
	v.oneOf("database.sslmode", d.SSLMode, "", "disable", "require", "verify-ca", "verify-full")
	v.between("database.max_open_conns", d.MaxOpenConns, 2, 10_000)
	v.between("database.max_idle_conns", d.MaxIdleConns, 0, d.MaxOpenConns)
	v.duration("database.conn_max_lifetime", d.ConnMaxLifetime, time.Second, 365*day)
	v.oneOf("database.log_level", d.LogLevel, "silent", "error", "warn", "info")

	if t.Namespace == "" {
		v.fail("temporal.namespace", "is empty")
	}
	v.together("temporal.tls.cert_file", t.TLS.CertFile, "temporal.tls.key_file", t.TLS.KeyFile)
	v.together("temporal.tls.key_file", t.TLS.KeyFile, "temporal.tls.cert_file", t.TLS.CertFile)
	if t.Address != "" {
		v.address("temporal.address", t.Address)
	}
	if t.Address == "" && t.TLS != (TemporalTLS{}) {
		v.fail("temporal.tls", "is for a Temporal cluster, and temporal.address is empty")
	}
	if t.UIURL != "" {
		if u, err := url.Parse(t.UIURL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			v.fail("temporal.ui_url", "%q is not an http or https URL", t.UIURL)
		}
		if t.Address == "" {
			v.fail("temporal.ui_url", "is for a Temporal cluster, and temporal.address is empty")
		}
	}
}

func (c Config) validateArtifacts(v *validation) {
	a := c.Artifacts
	v.oneOf("artifacts.store", a.Store, "disk", "s3")
	v.between("artifacts.max_bytes", a.MaxBytes, 1, maxBytes)
	v.duration("artifacts.retention", a.Retention, time.Hour, 100*365*day)
	v.between("artifacts.max_transfers", a.MaxTransfers, 1, 10_000)
	v.between("artifacts.max_buffered_bytes", a.MaxBufferedBytes, 4<<20, maxBytes)
	if a.Store != "s3" {
		if a.S3 != (ArtifactsS3{}) {
			v.fail("artifacts.s3", "is given, but artifacts.store is %s", a.Store)
		}
		return
	}
	v.together("artifacts.store s3", a.Store, "artifacts.s3.endpoint", a.S3.Endpoint)
	v.together("artifacts.store s3", a.Store, "artifacts.s3.bucket", a.S3.Bucket)
	v.together("artifacts.s3.access_key", a.S3.AccessKey, "artifacts.s3.secret_key_file", a.S3.SecretKeyFile)
	v.together("artifacts.s3.secret_key_file", a.S3.SecretKeyFile, "artifacts.s3.access_key", a.S3.AccessKey)
	if strings.Contains(a.S3.Endpoint, "/") {
		v.fail("artifacts.s3.endpoint", "%q is not host or host:port; http:// is said by artifacts.s3.insecure", a.S3.Endpoint)
	}
}

// Loopback gives an address with an empty host as one on loopback.
func Loopback(addr string) string {
	if strings.HasPrefix(addr, ":") {
		return "127.0.0.1" + addr
	}
	return addr
}

// IsLoopback reports whether an address, as Loopback reads it, can be reached from this machine alone.
func IsLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || host == "" || host == "localhost" {
		return true // what is no address is another check's matter
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
