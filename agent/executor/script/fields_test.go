package script_test

import (
	"reflect"
	"testing"

	"github.com/quicflow/quicflow/agent/executor/executortest"
	"github.com/quicflow/quicflow/internal/release"
)

func TestEveryFieldHasATest(t *testing.T) {
	t.Parallel()
	executortest.FieldsAreTested(t, reflect.TypeFor[release.ScriptSpec](), map[string]string{
		"interpreter": "TestInterpreterAndWorkDir", "work_dir": "TestInterpreterAndWorkDir", "user": "TestReleaseOfAnotherUser", "env": "TestEnvironment",
		"timeout": "TestTimeoutKillsTheGroup", "pre_script": "TestScriptsRunInOrder", "post_script": "TestScriptsRunInOrder",
		"install": "TestActionsHaveTheirScripts", "update": "TestActionsHaveTheirScripts", "rollback": "TestActionsHaveTheirScripts",
		"uninstall":     "TestActionsHaveTheirScripts",
		"limits.memory": "TestLimitsHold", "limits.cpus": "TestLimits", "limits.processes": "TestLimits", "limits.open_files": "TestLimitsHold",
		"limits.file_size": "TestLimitsHold",
		"artifacts[].name": "TestNamesWithShellCharacters", "artifacts[].sha256": "TestDamagedArtifact", "artifacts[].url": "", // agent/artifacts
		"artifacts[].unpack": "TestReleases", "artifacts[].strip": "TestReleases", "artifacts[].mode": "TestReleases", "keep_releases": "TestReleases",
		"health.http": "TestHealthHTTP", "health.tcp": "TestHealthTCP", "health.exec": "TestHealthExec", "health.interval": "TestHealthInterval",
		"health.timeout": "TestHealthExec", "health.retries": "TestHealthHTTP", "health.start_period": "TestHealthExec",
	})
}
