package executortest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/executortest"
	"github.com/quicflow/quicflow/agent/executor/wrapper"
	"github.com/quicflow/quicflow/internal/release"
)

func TestMain(m *testing.M) {
	var all []executor.Worker
	for _, t := range release.Types {
		all = append(all, executortest.Fake{Of: t})
	}
	wrapper.MaybeRun(all...)
	goleak.VerifyTestMain(m)
}

func effects(step *executor.Step) string {
	return filepath.Join(step.Host.DataDir, "effects-"+strings.ReplaceAll(step.ID, "/", "-"))
}

func TestFakeConforms(t *testing.T) {
	worker := executortest.Fake{Of: release.TypeContainer}
	executortest.Conformance(t, executortest.Factory{
		New: func(t testing.TB) executor.Executor {
			return executortest.NewExecutor(t, wrapper.Config{Worker: worker})
		},
		Config: func(_ testing.TB, behaviour executortest.Behaviour, step *executor.Step) release.Merged {
			did := executortest.Op{Effect: effects(step)}
			env := map[string]string{}
			switch behaviour {
			case executortest.TakesASec:
				env["FAKE"] = executortest.Do(did, executortest.Op{Sleep: time.Second})
			case executortest.Fails:
				env["FAKE"] = executortest.Do(did, executortest.Op{Fail: "port 8080 is taken"})
			case executortest.Blocks:
				env["FAKE"] = executortest.Do(did, executortest.Op{Block: true})
			case executortest.Wrong:
				env["FAKE"] = "["
			case executortest.UsesASecret:
				env["FAKE"], env["TOKEN_OF_APP"] = executortest.Do(did, executortest.Op{Script: `[ -n "$TOKEN_OF_APP" ]`}, executortest.Op{Say: "${TOKEN}"}), "${TOKEN}"
			default:
				env["FAKE"] = executortest.Do(did)
			}
			return release.Merged{Type: worker.Of, Spec: release.Spec{Container: &release.ContainerSpec{Env: env}}}
		},
		Effects: func(_ testing.TB, step *executor.Step) int {
			text, _ := os.ReadFile(effects(step))
			return strings.Count(string(text), "\n")
		},
		SurvivesKill: true, HasLogs: true,
	})
}
