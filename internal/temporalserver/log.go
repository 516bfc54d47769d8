package temporalserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	tlog "go.temporal.io/server/common/log"
	"go.temporal.io/server/common/log/tag"
)

// maxLogSize is where a start begins a new log and keeps the old one beside it.
const maxLogSize = 10 << 20

// logFile is where Temporal's own log goes: it is too much for a terminal, most of all at shutdown.
type logFile struct {
	file   *os.File
	logger tlog.Logger
}

func openLog(path string, operator *slog.Logger) (*logFile, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the log directory: %w", err)
	}
	if info, err := os.Stat(path); err == nil && info.Size() > maxLogSize {
		if err := os.Rename(path, path+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("rotate the Temporal log: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the Temporal log: %w", err)
	}
	handler := slog.NewTextHandler(f, &slog.HandlerOptions{Level: slog.LevelWarn})
	return &logFile{file: f, logger: &logger{slog: slog.New(handler), operator: operator, path: path}}, nil
}

// close leaves stragglers of the stopped server writing to a closed file, which slog ignores.
func (l *logFile) close() { _ = l.file.Close() }

// logger hands Temporal's log lines to slog.
type logger struct {
	slog     *slog.Logger
	operator *slog.Logger
	path     string
}

var (
	_ tlog.Logger     = (*logger)(nil)
	_ tlog.WithLogger = (*logger)(nil)
)

func (l *logger) write(level slog.Level, msg string, tags []tag.Tag) {
	if !l.slog.Enabled(context.Background(), level) {
		return
	}
	record := slog.NewRecord(time.Now(), level, msg, 0)
	record.AddAttrs(attrs(tags)...)
	_ = l.slog.Handler().Handle(context.Background(), record) // there is no one to tell that a log failed
}

func (l *logger) Debug(msg string, tags ...tag.Tag)  { l.write(slog.LevelDebug, msg, tags) }
func (l *logger) Info(msg string, tags ...tag.Tag)   { l.write(slog.LevelInfo, msg, tags) }
func (l *logger) Warn(msg string, tags ...tag.Tag)   { l.write(slog.LevelWarn, msg, tags) }
func (l *logger) Error(msg string, tags ...tag.Tag)  { l.write(slog.LevelError, msg, tags) }
func (l *logger) DPanic(msg string, tags ...tag.Tag) { l.write(slog.LevelError, msg, tags) }

// Panic panics, as Temporal expects.
func (l *logger) Panic(msg string, tags ...tag.Tag) {
	l.write(slog.LevelError, msg, tags)
	panic(msg)
}

// Fatal ends the process, as Temporal expects, and tells the operator why.
func (l *logger) Fatal(msg string, tags ...tag.Tag) {
	l.write(slog.LevelError, msg, tags)
	l.operator.LogAttrs(context.Background(), slog.LevelError, "the embedded Temporal server cannot go on",
		append(attrs(tags), slog.String("reason", msg), slog.String("log", l.path))...)
	os.Exit(1)
}

// With gives a logger that adds tags to every line.
func (l *logger) With(tags ...tag.Tag) tlog.Logger {
	c := *l
	c.slog = slog.New(l.slog.Handler().WithAttrs(attrs(tags)))
	return &c
}

func attrs(tags []tag.Tag) []slog.Attr {
	as := make([]slog.Attr, len(tags))
	for i, t := range tags {
		as[i] = slog.Any(t.Key(), t.Value())
	}
	return as
}
