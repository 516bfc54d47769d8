package telemetry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	"github.com/quicflow/quicflow/internal/telemetry"
)

// registry has all metrics of a server.
func registry(t *testing.T) *prometheus.Registry {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Driver: store.SQLite, DSN: filepath.Join(t.TempDir(), "db"), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	reg := telemetry.NewRegistry("test")
	_, err = hub.NewMetrics(reg)
	require.NoError(t, err)
	require.NoError(t, reg.Register(telemetry.NewRollouts(s, slog.New(slog.DiscardHandler))))
	require.NoError(t, reg.Register(telemetry.NewJobs(s, slog.New(slog.DiscardHandler))))
	return reg
}

func gather(t *testing.T, reg *prometheus.Registry) map[string]bool {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	names := map[string]bool{}
	for _, f := range families {
		names[f.GetName()] = true
	}
	return names
}

// What the documentation promises, to the letter.
func TestPromisedMetricsExist(t *testing.T) {
	there := gather(t, registry(t))
	for _, name := range strings.Fields(`connected_clients total_connections total_disconnects messages_sent_total messages_received_total
		messages_failed_total bytes_sent_total bytes_received_total message_throughput latency_average_milliseconds latency_p50_milliseconds
		latency_p95_milliseconds latency_p99_milliseconds heartbeats_sent_total heartbeats_received_total heartbeat_timeouts_total
		promise_created_total promise_completed_total promise_timeouts_total promise_active broadcasts_sent_total broadcast_targets_total
		encoding_errors_total decoding_errors_total network_errors_total uptime_seconds sessions_reconnecting handshakes_refused_total`) {
		require.True(t, there["quic_backbone_"+name], name)
	}
	require.True(t, there["go_goroutines"])
	require.True(t, there["process_resident_memory_bytes"])
}

func TestEveryNameIsRegistered(t *testing.T) {
	there := gather(t, registry(t))
	file, err := parser.ParseFile(token.NewFileSet(), "names.go", nil, 0)
	require.NoError(t, err)
	names := 0
	ast.Inspect(file, func(n ast.Node) bool {
		if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			name, err := strconv.Unquote(literal.Value)
			require.NoError(t, err)
			if strings.Contains(name, "_") { // labels have none
				names++
				require.True(t, there[name], "%s is not registered", name)
			}
		}
		return true
	})
	require.Greater(t, names, 40)
	operations, err := os.ReadFile("../../docs/operations.md")
	require.NoError(t, err)
	for name := range there {
		if strings.HasPrefix(name, "quic") {
			documented := strings.Contains(string(operations), "`"+strings.TrimPrefix(name, "quic_backbone_")+"`")
			require.True(t, documented, "docs/operations.md does not name %s", name)
		}
	}
}

// A name is written down once: whoever wants it takes the constant.
func TestNamesAreInOnePlace(t *testing.T) {
	there := gather(t, registry(t))
	files := 0
	require.NoError(t, filepath.WalkDir("../..", func(path string, entry os.DirEntry, err error) error {
		switch name := entry.Name(); {
		case err != nil:
			return err
		case entry.IsDir() && (name == "node_modules" || len(name) > 2 && name[0] == '.'):
			return filepath.SkipDir
		case !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || path == "../../internal/telemetry/names.go":
			return nil
		}
		files++
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
				text, err := strconv.Unquote(literal.Value)
				require.NoError(t, err)
				require.False(t, there[text] && strings.HasPrefix(text, "quic"), "%s has %s", path, literal.Value)
			}
			return true
		})
		return nil
	}))
	require.Greater(t, files, 200)
}

var metricName = regexp.MustCompile(`\b(quic_backbone|quicflow|go|process)_[a-z0-9_]+\b`)

// used finds the metrics in expressions. A series of a histogram or of a summary has a suffix.
func used(t *testing.T, there map[string]bool, expressions []string) {
	t.Helper()
	require.NotEmpty(t, expressions)
	for _, expression := range expressions {
		found := metricName.FindAllString(expression, -1)
		if len(found) == 0 {
			require.Contains(t, expression, "up{", "it mentions no metric")
		}
		for _, name := range found {
			base := name
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				if trimmed := strings.TrimSuffix(name, suffix); there[trimmed] {
					base = trimmed
				}
			}
			require.True(t, there[base], "%s, in %s", name, expression)
		}
		require.Equal(t, strings.Count(expression, "("), strings.Count(expression, ")"), expression)
		require.Equal(t, strings.Count(expression, "{"), strings.Count(expression, "}"), expression)
	}
}

func TestDashboardShowsWhatExists(t *testing.T) {
	there := gather(t, registry(t))
	text, err := os.ReadFile("../../deploy/grafana/quicflow.json")
	require.NoError(t, err)
	var dashboard struct {
		Panels []struct {
			Type    string
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal(text, &dashboard))
	var expressions []string
	for _, panel := range dashboard.Panels {
		require.Equal(t, panel.Type == "row", len(panel.Targets) == 0)
		for _, target := range panel.Targets {
			expressions = append(expressions, target.Expr)
		}
	}
	used(t, there, expressions)
}

func TestAlertsWatchWhatExists(t *testing.T) {
	there := gather(t, registry(t))
	text, err := os.ReadFile("../../deploy/prometheus/quicflow.rules.yaml")
	require.NoError(t, err)
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert       string
				Expr        string
				For         string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	require.NoError(t, yaml.Unmarshal(text, &rules))
	var expressions []string
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			expressions = append(expressions, rule.Expr)
			require.NotEmpty(t, rule.Annotations["summary"], rule.Alert)
			require.NotEmpty(t, rule.Annotations["description"], rule.Alert)
			require.Contains(t, []string{"warning", "critical"}, rule.Labels["severity"], rule.Alert)
		}
	}
	used(t, there, expressions)
}

// source is a RolloutSource that says what it is told.
type source struct{ err error }

func (s source) TaskTotals(context.Context) (map[release.Status]release.TaskTotal, error) {
	return map[release.Status]release.TaskTotal{release.StatusSucceeded: {Tasks: 2, Took: 3 * time.Second}, release.StatusRunning: {Tasks: 1}}, s.err
}

func (s source) StepOutcomes() map[release.StepState]int {
	return map[release.StepState]int{release.StepFailed: 4}
}

func TestRollouts(t *testing.T) {
	for _, failure := range []error{nil, errors.New("database is down")} {
		reg := prometheus.NewRegistry()
		require.NoError(t, reg.Register(telemetry.NewRollouts(source{failure}, slog.New(slog.DiscardHandler))))
		families, err := reg.Gather()
		require.NoError(t, err, "the other metrics must not suffer")
		got := map[string]string{}
		for _, f := range families {
			for _, m := range f.Metric {
				value := fmt.Sprint(m.Gauge.GetValue() + m.Counter.GetValue())
				if m.Summary != nil {
					value = fmt.Sprint(m.Summary.GetSampleSum(), "/", m.Summary.GetSampleCount())
				}
				got[f.GetName()+" "+m.Label[0].GetValue()] = value
			}
		}
		require.Equal(t, "4", got["quicflow_steps_total failed"])
		require.Equal(t, "0", got["quicflow_steps_total succeeded"])
		if failure != nil {
			require.NotContains(t, got, "quicflow_tasks running")
			continue
		}
		require.Equal(t, "1", got["quicflow_tasks running"])
		require.Equal(t, "0", got["quicflow_tasks aborted"])
		require.Equal(t, "3/2", got["quicflow_rollout_duration_seconds succeeded"])
		require.NotContains(t, got, "quicflow_rollout_duration_seconds running")
	}
}
