package script_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/executortest"
	"github.com/quicflow/quicflow/agent/executor/script"
	"github.com/quicflow/quicflow/agent/executor/wrapper"
	"github.com/quicflow/quicflow/internal/release"
)

func TestScriptConforms(t *testing.T) {
	effects := func(step *executor.Step) string {
		return filepath.Join(step.Host.DataDir, "effects-"+strings.ReplaceAll(step.ID, "/", "-"))
	}
	executortest.Conformance(t, executortest.Factory{
		New: func(t testing.TB) executor.Executor {
			return executortest.NewExecutor(t, wrapper.Config{Worker: script.New()})
		},
		Config: func(_ testing.TB, behaviour executortest.Behaviour, step *executor.Step) release.Merged {
			spec := &release.ScriptSpec{Env: map[string]string{"EFFECTS": effects(step)}, Uninstall: "true", Timeout: release.Duration(time.Minute)}
			spec.Install = "echo x >> $EFFECTS\n" + map[executortest.Behaviour]string{
				executortest.TakesASec:   "sleep 1",
				executortest.Fails:       "echo no disk >&2; exit 4",
				executortest.Blocks:      "sleep 1000",
				executortest.UsesASecret: `[ -n "$APP_TOKEN" ] && sleep 0.1`,
			}[behaviour]
			switch behaviour {
			case executortest.Wrong:
				spec.WorkDir = "relative"
			case executortest.UsesASecret:
				spec.Env["APP_TOKEN"] = "${TOKEN}"
				spec.Health = &release.Health{Exec: `[ "${APP_TOKEN}" = "$APP_TOKEN" ]`}
			}
			spec.Update, spec.Rollback = spec.Install, spec.Install
			return release.Merged{Type: release.TypeScript, Spec: release.Spec{Script: spec}}
		},
		Effects: func(_ testing.TB, step *executor.Step) int {
			text, _ := os.ReadFile(effects(step))
			return strings.Count(string(text), "\n")
		},
	})
}
