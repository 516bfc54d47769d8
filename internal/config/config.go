// Package config is the server's configuration: its keys with their defaults, read strictly from YAML and from QUIC_…
// environment variables, checked, and written out again with comments.
package config

import (
	"os"
	"path/filepath"
)

// Config is every key there is. The tag key is the name in YAML; an environment variable is called QUIC_<SECTION>_<KEY>.
// The tag doc is the comment that Write puts above a key; it starts with the values where they are few.
type Config struct {
	Server   Server   `key:"server" doc:"Addresses and state of the server."`
	TLS      TLS      `key:"tls" doc:"The certificate that agents see. Empty means one by the server's own authority. Agents trust the authority that was in force when they joined."`
	QUIC     QUIC     `key:"quic" doc:"QUIC tuning. Windows are in bytes."`
	Session  Session  `key:"session" doc:"Sessions of agents."`
	Message  Message  `key:"message" doc:"Messages and promises between hub and agents."`
	Batch    Batch    `key:"batch" doc:"Commands and batch jobs."`
	Log      Log      `key:"log" doc:"The server's own log."`
	Database Database `key:"database" doc:"Where projects, tasks, history and logs are kept. The default is SQLite in the data directory."`
	Temporal Temporal `key:"temporal" doc:"The Temporal cluster. The default is a Temporal server inside this process, its state beside the database."`
	Logs     Logs     `key:"logs" doc:"Logs of deployments and commands."`
	Metrics  Metrics  `key:"metrics" doc:"Prometheus metrics."`

	Artifacts Artifacts `key:"artifacts" doc:"Files that are uploaded for versions, and delivered to agents."`
}

// Server is section server.
type Server struct {
	Addr           string `key:"addr" doc:"Agents connect here, over QUIC (UDP). An empty host means every interface."`
	APIAddr        string `key:"api_addr" doc:"HTTP API, web pages and Temporal UI. An empty host means loopback; any address but loopback wants the two keys below."`
	APITLSCertFile string `key:"api_tls_cert_file" doc:"Certificate chain (PEM) for HTTPS at api_addr and metrics.addr. Empty means HTTP."`
	APITLSKeyFile  string `key:"api_tls_key_file" doc:"Private key (PEM) of api_tls_cert_file."`
	DataDir        string `key:"data_dir" doc:"All state, readable by the server alone. Empty means /var/lib/quicflow/server for root and $XDG_STATE_HOME/quicflow/server for others. The flag --data-dir wins."`
	SecretsKeyFile string `key:"secrets_key_file" doc:"Key that encrypts secret variables, as 64 hexadecimal digits. Servers that share a database need the same. Empty means secrets.key in the data directory, made at the first start; keep a copy of it, as secrets cannot be read without."`
	HighPerf       bool   `key:"high_perf" doc:"Use the high-performance preset for every key that is not given."`
	MaxClients     int    `key:"max_clients" doc:"Agents beyond this number are refused."`
	GCPercent      int    `key:"gc_percent" doc:"How far memory may grow, in percent, before Go collects garbage. A lower one takes less memory and more CPU time. GOGC in the environment wins."`
}

// TLS is section tls.
type TLS struct {
	CertFile string `key:"cert_file" doc:"Certificate chain (PEM), valid for the name hub.quicflow and with the authority's own certificate last."`
	KeyFile  string `key:"key_file" doc:"Private key (PEM) of cert_file."`

	PostQuantum bool `key:"post_quantum" doc:"Agree on keys by X25519 and ML-KEM-768, so that what is recorded today stays secret from a quantum computer. Without it, by X25519 alone, a handshake costs a third less CPU time and an agent less memory."`
}

// QUIC is section quic.
type QUIC struct {
	MaxIdleTimeout                 Duration `key:"max_idle_timeout" doc:"A connection that is silent for longer is closed. Raised where it would come before the heartbeat check."`
	MaxIncomingStreams             int      `key:"max_incoming_streams" doc:"Bidirectional streams that an agent may have open."`
	MaxIncomingUniStreams          int      `key:"max_incoming_uni_streams" doc:"Unidirectional streams that an agent may have open. Lowered to the 4 that logs need, or to what the windows hold."`
	InitialStreamReceiveWindow     int      `key:"initial_stream_receive_window" doc:"Flow control of a stream, at first."`
	MaxStreamReceiveWindow         int      `key:"max_stream_receive_window" doc:"Flow control of a stream, at most."`
	InitialConnectionReceiveWindow int      `key:"initial_connection_receive_window" doc:"Flow control of a connection, at first."`
	MaxConnectionReceiveWindow     int      `key:"max_connection_receive_window" doc:"Flow control of a connection, at most."`
}

// Session is section session.
type Session struct {
	HeartbeatInterval      Duration `key:"heartbeat_interval" doc:"Agents send a heartbeat this often."`
	HeartbeatTimeout       Duration `key:"heartbeat_timeout" doc:"A check that finds the last heartbeat older than this is a strike."`
	HeartbeatCheckInterval Duration `key:"heartbeat_check_interval" doc:"Time between two checks."`
	MaxTimeoutCount        int      `key:"max_timeout_count" doc:"So many strikes in a row end the session."`
	OfflineGrace           Duration `key:"offline_grace" doc:"An agent whose connection broke is reconnecting for this long, and only then offline."`
	DrainTimeout           Duration `key:"drain_timeout" doc:"Agents have this long to leave when the server stops; requests to them have half of it to be answered."`
	DrainAddress           string   `key:"drain_address" doc:"host:port of the hub that agents are sent to when the server stops. Empty means that they go on through their own list."`
	MaxHandshakes          int      `key:"max_handshakes" doc:"TLS handshakes at a time; more connections are refused before they cost anything, and come back within seconds."`
	MaxAdmissions          int      `key:"max_admissions" doc:"Agents that are being admitted at a time; more are told when to come back."`
	MaxEnrolments          int      `key:"max_enrolments" doc:"Agents that join or renew at a time; more are told when to come back."`
}

// Message is section message.
type Message struct {
	WorkerCount           int      `key:"worker_count" doc:"10 to 200 workers handle the messages of agents."`
	TaskQueueSize         int      `key:"task_queue_size" doc:"Messages that may wait for a worker; more are answered \"overloaded\"."`
	HandlerTimeout        Duration `key:"handler_timeout" doc:"An agent whose message a handler has not answered after this time is told so."`
	MaxPromises           int      `key:"max_promises" doc:"Requests to agents that may wait for an answer at a time."`
	PromiseWarnThreshold  int      `key:"promise_warn_threshold" doc:"From this number on a warning is logged."`
	DefaultMessageTimeout Duration `key:"default_message_timeout" doc:"Time for an answer where the request does not say."`
}

// Batch is section batch.
type Batch struct {
	Enabled        bool     `key:"enabled" doc:"Take batch jobs. Commands are taken in any case."`
	MaxConcurrency int      `key:"max_concurrency" doc:"Hosts of a job that are at work at a time: the most, and the default."`
	TaskTimeout    Duration `key:"task_timeout" doc:"Time for one host where the job does not say; it counts from the start there."`
	JobTimeout     Duration `key:"job_timeout" doc:"Time for a whole job where it does not say. Raised to what one host may take."`
	MaxRetries     int      `key:"max_retries" doc:"Further tries on a host where provably nothing was started, where the job does not say."`
	RetryInterval  Duration `key:"retry_interval" doc:"Time between two tries."`
	Retention      Duration `key:"retention" doc:"Jobs and commands are kept this long after their end, with their results and logs."`
}

// Log is section log.
type Log struct {
	Level  string `key:"level" doc:"debug, info, warn or error."`
	Format string `key:"format" doc:"text or json."`
	File   string `key:"file" doc:"File to append to. Empty means standard output."`
}

// Database is section database.
type Database struct {
	Driver          string   `key:"driver" doc:"sqlite or postgres. Empty means postgres if host or dsn is given, else sqlite."`
	DSN             string   `key:"dsn" doc:"Connection string of PostgreSQL, as postgres://… or as key=value pairs, in place of the keys below up to sslmode."`
	Host            string   `key:"host" doc:"Host name, address, or directory of the Unix socket."`
	Port            int      `key:"port" doc:"TCP port."`
	User            string   `key:"user" doc:"Role. It may create databases, unless temporal.address is given: the built-in Temporal makes two beside this one."`
	Password        string   `key:"password" doc:"Better given as QUIC_DATABASE_PASSWORD."`
	DBName          string   `key:"dbname" doc:"Database."`
	SSLMode         string   `key:"sslmode" doc:"disable, require, verify-ca or verify-full. Empty means disable on this machine, else require."`
	MaxIdleConns    int      `key:"max_idle_conns" doc:"Idle connections that are kept (PostgreSQL)."`
	MaxOpenConns    int      `key:"max_open_conns" doc:"Connections at a time (PostgreSQL)."`
	ConnMaxLifetime Duration `key:"conn_max_lifetime" doc:"A connection is replaced after this time (PostgreSQL)."`
	LogLevel        string   `key:"log_level" doc:"silent, error, warn or info: what of the store's own log is shown."`
}

// Temporal is section temporal.
type Temporal struct {
	Address   string      `key:"address" doc:"host:port of a Temporal cluster. Empty means the built-in server."`
	Namespace string      `key:"namespace" doc:"Namespace. The built-in server creates it; in a cluster it must exist."`
	TLS       TemporalTLS `key:"tls" doc:"TLS towards the cluster at address."`
	UIURL     string      `key:"ui_url" doc:"Where the cluster's web UI is, for links. The built-in server's is at /temporal/."`
}

// TemporalTLS is section temporal.tls.
type TemporalTLS struct {
	Enabled    bool   `key:"enabled" doc:"Use TLS. Any of the files below does so too."`
	CAFile     string `key:"ca_file" doc:"Authorities (PEM) that the cluster's certificate may be of. Empty means the system's."`
	CertFile   string `key:"cert_file" doc:"Client certificate (PEM)."`
	KeyFile    string `key:"key_file" doc:"Private key (PEM) of the client certificate."`
	ServerName string `key:"server_name" doc:"Name to expect in the cluster's certificate. Empty means the host of address."`
}

// Logs is section logs.
type Logs struct {
	MaxBufferedBytes int      `key:"max_buffered_bytes" doc:"Memory for logs that agents may send or that are not stored yet, of all agents together; above it agents wait."`
	CreditBytes      int      `key:"credit_bytes" doc:"Logs that an agent may send at a time; below half of quic.max_connection_receive_window."`
	Retention        Duration `key:"retention" doc:"The log of a task or job is kept this long after its end."`
	MaxBytes         int      `key:"max_bytes" doc:"A task or job whose log is larger loses the oldest of it, down to nine tenths."`
}

// Metrics is section metrics.
type Metrics struct {
	Addr string `key:"addr" doc:"Where /metrics is served. An empty host means loopback; any other address wants server.api_tls_cert_file. Empty means nowhere."`
}

// Artifacts is section artifacts.
type Artifacts struct {
	Store            string      `key:"store" doc:"disk or s3."`
	Dir              string      `key:"dir" doc:"Where they are kept, or, with s3, uploads that are not complete. Empty means artifacts in the data directory."`
	S3               ArtifactsS3 `key:"s3" doc:"The S3-compatible storage."`
	MaxBytes         int         `key:"max_bytes" doc:"Size of one artifact. A larger upload is refused."`
	Retention        Duration    `key:"retention" doc:"An artifact that no version uses is kept this long after it was used last."`
	MaxTransfers     int         `key:"max_transfers" doc:"Agents that are sent an artifact at a time; others wait, and are served in turns."`
	MaxBufferedBytes int         `key:"max_buffered_bytes" doc:"Memory for artifacts on their way: there are no more transfers than fit into it, at about 2 MiB each."`
}

// ArtifactsS3 is section artifacts.s3.
type ArtifactsS3 struct {
	Endpoint      string `key:"endpoint" doc:"Host, or host:port."`
	Bucket        string `key:"bucket" doc:"Bucket. It must exist."`
	Region        string `key:"region" doc:"Region. Empty means that the storage is asked."`
	Prefix        string `key:"prefix" doc:"What the names of objects begin with."`
	AccessKey     string `key:"access_key" doc:"Access key. Empty means AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the environment, or the role of the machine."`
	SecretKeyFile string `key:"secret_key_file" doc:"File that holds the secret key of access_key."`
	Insecure      bool   `key:"insecure" doc:"Plain HTTP, without TLS."`
}

// Standard is the preset for up to 10,000 agents, and the default.
func Standard() Config {
	return Config{
		Server: Server{Addr: ":8474", APIAddr: ":8475", MaxClients: 10_000, GCPercent: 100},
		TLS:    TLS{PostQuantum: true},
		QUIC: QUIC{
			MaxIdleTimeout:                 seconds(75),
			MaxIncomingStreams:             1000,
			MaxIncomingUniStreams:          100,
			InitialStreamReceiveWindow:     524_288,
			MaxStreamReceiveWindow:         6_291_456,
			InitialConnectionReceiveWindow: 1_048_576,
			MaxConnectionReceiveWindow:     15_728_640,
		},
		Session: Session{
			HeartbeatInterval:      seconds(15),
			HeartbeatTimeout:       seconds(45),
			HeartbeatCheckInterval: seconds(5),
			MaxTimeoutCount:        3,
			OfflineGrace:           seconds(90),
			DrainTimeout:           seconds(3),
			MaxHandshakes:          256,
			MaxAdmissions:          1024,
			MaxEnrolments:          64,
		},
		Message: Message{
			WorkerCount:           20,
			TaskQueueSize:         2000,
			HandlerTimeout:        seconds(30),
			MaxPromises:           50_000,
			PromiseWarnThreshold:  40_000,
			DefaultMessageTimeout: seconds(30),
		},
		Batch: Batch{
			Enabled:        true,
			MaxConcurrency: 5000,
			TaskTimeout:    seconds(60),
			JobTimeout:     seconds(600),
			MaxRetries:     2,
			RetryInterval:  seconds(1),
			Retention:      seconds(30 * 24 * 3600),
		},
		Log: Log{Level: "info", Format: "text"},
		Database: Database{
			Port:            5432,
			User:            "quicflow",
			DBName:          "quicflow",
			MaxIdleConns:    10,
			MaxOpenConns:    100,
			ConnMaxLifetime: seconds(3600),
			LogLevel:        "warn",
		},
		Temporal: Temporal{Namespace: "default"},
		Logs:     Logs{MaxBufferedBytes: 256 << 20, CreditBytes: 256 << 10, Retention: seconds(30 * 24 * 3600), MaxBytes: 1 << 30},
		Metrics:  Metrics{Addr: ":9090"},
		Artifacts: Artifacts{
			Store: "disk", MaxBytes: 10 << 30, Retention: seconds(30 * 24 * 3600), MaxTransfers: 64, MaxBufferedBytes: 256 << 20,
		},
	}
}

// HighPerformance is the preset for 100,000 agents and more. Its windows start small, because that is memory which every
// connection may take.
func HighPerformance() Config {
	c := Standard()
	c.Server.HighPerf = true
	c.Server.MaxClients = 150_000
	c.TLS.PostQuantum = false
	c.QUIC.MaxIdleTimeout = seconds(150)
	c.QUIC.MaxIncomingStreams = 10_000
	c.QUIC.MaxIncomingUniStreams = 1000
	c.QUIC.InitialStreamReceiveWindow = 131_072
	c.QUIC.InitialConnectionReceiveWindow = 524_288
	c.Session.HeartbeatInterval = seconds(30)
	c.Session.HeartbeatTimeout = seconds(90)
	c.Session.HeartbeatCheckInterval = seconds(10)
	c.Session.MaxHandshakes = 512
	c.Message.WorkerCount = 200
	c.Message.TaskQueueSize = 100_000
	c.Message.HandlerTimeout = seconds(60)
	c.Message.MaxPromises = 150_000
	c.Message.PromiseWarnThreshold = 120_000
	c.Message.DefaultMessageTimeout = seconds(60)
	c.Batch.JobTimeout = seconds(1800)
	return c
}

func preset(highPerf bool) Config {
	if highPerf {
		return HighPerformance()
	}
	return Standard()
}

// DataDir is where state goes when nobody says.
func DataDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/quicflow/server", nil
	}
	if state := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "quicflow", "server"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".local", "state", "quicflow", "server"), nil
}
