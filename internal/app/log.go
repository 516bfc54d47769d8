package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/quicflow/quicflow/internal/config"
)

// OpenLog makes the logger that section log describes. close ends its file.
func OpenLog(c config.Log, stdout io.Writer) (logger *slog.Logger, closeFile func() error, err error) {
	out, closeFile := stdout, func() error { return nil }
	if c.File != "" {
		f, err := os.OpenFile(c.File, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, nil, fmt.Errorf("log.file: %w", err)
		}
		out, closeFile = f, f.Close
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		return nil, nil, fmt.Errorf("log.level: %w", err)
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(out, options)), closeFile, nil
	}
	return slog.New(slog.NewTextHandler(out, options)), closeFile, nil
}

// atLeast gives a logger that drops what is below a level.
func atLeast(level slog.Leveler, l *slog.Logger) *slog.Logger {
	return slog.New(levelHandler{Handler: l.Handler(), level: level})
}

// databaseLog is the store's logger by database.log_level.
func databaseLog(level string, l *slog.Logger) *slog.Logger {
	switch level {
	case "silent":
		return slog.New(slog.DiscardHandler)
	case "error":
		return atLeast(slog.LevelError, l)
	case "warn":
		return atLeast(slog.LevelWarn, l)
	}
	return l
}

type levelHandler struct {
	slog.Handler
	level slog.Leveler
}

// Enabled implements slog.Handler.
func (h levelHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= h.level.Level() && h.Handler.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (h levelHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return levelHandler{Handler: h.Handler.WithAttrs(attrs), level: h.level}
}

// WithGroup implements slog.Handler.
func (h levelHandler) WithGroup(name string) slog.Handler {
	return levelHandler{Handler: h.Handler.WithGroup(name), level: h.level}
}
