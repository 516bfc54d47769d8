package main

import (
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/quicflow/quicflow/internal/release"
)

const (
	defaultServer = "127.0.0.1:8474"
	defaultCount  = 10_000
	defaultPrefix = "load-client"
	maxCount      = 1_000_000 // ids have six digits, and a join token no more uses
	tokenVariable = "QUIC_JOIN_TOKEN"
)

// options are the flags.
type options struct {
	server        string
	serverGiven   bool
	count         int
	prefix        string
	concurrency   int
	insecure      bool
	keepAlive     bool
	report        seconds
	duration      seconds
	connect       seconds
	logLevel      string
	token         string
	identities    string
	serverDataDir string
	exec          span
	failureRate   float64
	logBytes      int
	logLines      int
	json          bool

	out, err io.Writer
	logger   *slog.Logger
}

func (o *options) register(flags *pflag.FlagSet) {
	o.report, o.connect = seconds(5*time.Second), seconds(2*time.Minute)
	flags.StringVarP(&o.server, "server", "s", defaultServer, "address of the server, host:port")
	flags.IntVarP(&o.count, "count", "n", defaultCount, "number of agents")
	flags.StringVarP(&o.prefix, "prefix", "p", defaultPrefix, "what the ids of the agents begin with")
	flags.IntVarP(&o.concurrency, "concurrency", "c", 100, "agents that connect at the same time")
	flags.BoolVarP(&o.insecure, "insecure", "k", true, "do not check the server's certificate")
	flags.BoolVar(&o.keepAlive, "keep-alive", true, "stay connected, until --duration or Ctrl-C; false: leave once all were accepted")
	flags.Var(&o.report, "report-interval", "time between two reports, in seconds or as 5s")
	flags.Var(&o.duration, "duration", "how long to stay once all were accepted, in seconds or as 5m; 0 is until Ctrl-C")
	flags.Var(&o.connect, "connect-timeout", "how long an agent tries to be accepted before it has failed")
	flags.StringVar(&o.logLevel, "log-level", "warn", "debug, info, warn or error")
	flags.StringVar(&o.token, "token", "", "join token, good for all agents; also $"+tokenVariable+" (default: made through a local server)")
	flags.StringVar(&o.identities, "identities", "", "directory that keeps the agents' identities (default /var/lib/quicflow/loadtest for root, else $XDG_STATE_HOME/quicflow/loadtest)")
	flags.StringVar(&o.serverDataDir, "server-data-dir", "", "data directory of a local server, to join without a token (default: the local server's default)")
	flags.Var(&o.exec, "exec-time", "how long a step takes, a duration or a range such as 1s-5s")
	flags.Float64Var(&o.failureRate, "failure-rate", 0, "part of the steps that fail, 0 to 1")
	flags.IntVar(&o.logBytes, "log-bytes", 1024, "bytes that each step prints")
	flags.IntVar(&o.logLines, "log-lines", 0, "lines of 64 bytes that each step prints, each a record of its own, in place of --log-bytes")
	flags.BoolVar(&o.json, "json", false, "print the summary as JSON")
}

// check names the flag that is wrong.
func (o *options) check() error {
	if o.concurrency < 1 {
		return fmt.Errorf("--concurrency: %d is less than 1", o.concurrency)
	}
	if !(o.failureRate >= 0 && o.failureRate <= 1) {
		return fmt.Errorf("--failure-rate: %v is not between 0 and 1", o.failureRate)
	}
	if o.logBytes < 0 {
		return fmt.Errorf("--log-bytes: %d is less than 0", o.logBytes)
	}
	if o.logLines < 0 {
		return fmt.Errorf("--log-lines: %d is less than 0", o.logLines)
	}
	if o.logLines > 0 {
		o.logBytes = 0
	}
	if o.report == 0 {
		return fmt.Errorf("--report-interval: must be longer than 0")
	}
	if o.connect == 0 {
		return fmt.Errorf("--connect-timeout: must be longer than 0")
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return fmt.Errorf("--log-level: %q is none of debug, info, warn, error", o.logLevel)
	}
	o.logger = slog.New(slog.NewTextHandler(o.err, &slog.HandlerOptions{Level: level}))
	return nil
}

// clientIDs are the same for each run with a prefix, whatever the count.
func clientIDs(prefix string, count int) ([]string, error) {
	if count < 1 || count > maxCount {
		return nil, fmt.Errorf("--count: %d is not between 1 and %d", count, maxCount)
	}
	ids := make([]string, count)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s-%06d", prefix, i)
	}
	if err := release.ValidateClientID(ids[0]); err != nil {
		return nil, fmt.Errorf("--prefix: %w", err)
	}
	return ids, nil
}

// seconds is a duration that may be written as a number of seconds.
type seconds time.Duration

func (s *seconds) String() string { return time.Duration(*s).String() }
func (s *seconds) Type() string   { return "duration" }

func (s *seconds) Set(text string) error {
	d, err := parseDuration(text)
	*s = seconds(d)
	return err
}

func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if n, e := strconv.ParseFloat(text, 64); e == nil {
		d, err = time.Duration(n*float64(time.Second)), nil
	}
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration such as 5s", text)
	}
	return d, nil
}

// span is a duration, or a range of them.
type span struct{ min, max time.Duration }

func (s *span) Type() string { return "duration" }

func (s *span) String() string {
	if s.max == s.min {
		return s.min.String()
	}
	return s.min.String() + "-" + s.max.String()
}

func (s *span) Set(text string) (err error) {
	low, high, ranged := strings.Cut(text, "-")
	if s.min, err = parseDuration(low); err != nil {
		return err
	}
	s.max = s.min
	if ranged {
		s.max, err = parseDuration(high)
	}
	if err == nil && s.max < s.min {
		err = fmt.Errorf("%q ends before it begins", text)
	}
	return err
}
