package app

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/config"
)

func TestOpenLog(t *testing.T) {
	var stdout bytes.Buffer
	l, closeLog, err := OpenLog(config.Log{Level: "warn", Format: "json"}, &stdout)
	require.NoError(t, err)
	l.Info("quiet")
	l.Warn("loud", "key", 1)
	require.NoError(t, closeLog())
	require.NotContains(t, stdout.String(), "quiet")
	require.Contains(t, stdout.String(), `"msg":"loud","key":1}`)

	file := filepath.Join(t.TempDir(), "server.log")
	for range 2 {
		l, closeLog, err = OpenLog(config.Log{Level: "info", Format: "text", File: file}, &stdout)
		require.NoError(t, err)
		l.Info("line")
		require.NoError(t, closeLog())
	}
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, 2, bytes.Count(text, []byte("msg=line")), "appended")

	_, _, err = OpenLog(config.Log{Level: "info", File: t.TempDir()}, &stdout)
	require.ErrorContains(t, err, "log.file")
}

func TestDatabaseLog(t *testing.T) {
	for level, want := range map[string]int{"silent": 0, "error": 1, "warn": 2, "info": 3} {
		var out bytes.Buffer
		l := databaseLog(level, slog.New(slog.NewTextHandler(&out, nil))).With("a", 1).WithGroup("g")
		l.Info("x")
		l.Warn("x")
		l.Error("x")
		require.Equal(t, want, bytes.Count(out.Bytes(), []byte("msg=x")), level)
	}
}
