package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
)

// A secret reaches its script, and is nowhere else: not in the database, nor in Temporal's, which has all histories, nor in a log. And a host that
// returns to a version gets what it had, though the project and its variables are others by then.
func TestConfigurationOfATask(t *testing.T) {
	s := startServer(t, serverConfig{})
	agents := startAgents(t, s, 1)
	traces := filepath.Join(t.TempDir(), "traces")
	const secret = "hunter2-is-nowhere"
	script := fmt.Sprintf(`printf %%s "$PASSWORD" | sha256sum | grep -q %x || { echo "another password"; exit 1; }
echo "$QUICFLOW_VERSION $SETTING" >> %s`, sha256.Sum256([]byte(secret)), traces)

	stdin := filepath.Join(t.TempDir(), "files.yaml")
	require.NoError(t, os.WriteFile(stdin, []byte(fmt.Sprintf(`kind: Project
name: shop
script:
  env: {PASSWORD: "${TOKEN}", SETTING: "${SETTING} in ${QUICFLOW_ENVIRONMENT}"}
---
{kind: Environment, project: shop, name: prod, selector: "*"}
---
{kind: Variable, project: shop, environment: prod, name: SETTING, value: one}
---
{kind: Variable, project: shop, name: TOKEN, secret: true, value: %s}
---
{kind: Version, project: shop, version: "1.0", status: active, script: {install: %q, uninstall: %q}}
---
{kind: Version, project: shop, version: "2.0", status: active, script: {install: %q, uninstall: %q}}
`, secret, script, script, script, script)), 0o600))
	out, errs, code := s.ctl("apply", "-f", stdin)
	require.Zero(t, code, errs)
	require.NotContains(t, out+errs, secret)
	deploy := func(body object) release.Task {
		var task release.Task
		body["project"], body["environment"] = "shop", "prod"
		s.post("/api/release/tasks", body, &task)
		return task
	}
	task := s.finish(deploy(object{"version": "1.0"}).ID, time.Minute)
	require.Equal(t, release.StatusSucceeded, task.Status, task.Reason)

	// All is another by now, and the next version waits for a person after its canary.
	status, answer := s.call(http.MethodPut, "/api/release/projects/shop/variables/SETTING?environment=prod", `{"value":"two"}`)
	require.Equal(t, http.StatusOK, status, answer)
	next := deploy(object{"version": "2.0", "strategy": object{"canary": object{"percent": 100, "soak": "1h"}}})
	s.reach(next.ID, time.Minute, "the canary is done", func(t release.Task) bool { return t.Phase == release.PhaseSoak })
	s.steer(next.ID, "rollback")
	next = s.finish(next.ID, time.Minute)
	require.Equal(t, release.StatusRolledBack, next.Status, next.Reason)
	gone := s.finish(deploy(object{"action": "uninstall"}).ID, time.Minute)
	require.Equal(t, release.StatusSucceeded, gone.Status, gone.Reason)
	trace, err := os.ReadFile(traces)
	require.NoError(t, err)
	require.Equal(t, "1.0 one in prod\n2.0 two in prod\n1.0 one in prod\n one in prod\n", string(trace))

	for _, a := range agents {
		require.Zero(t, a.proc.stop())
		logged, err := os.ReadFile(a.log())
		require.NoError(t, err)
		require.NotContains(t, string(logged), secret)
	}
	require.Zero(t, s.proc.stop())
	searched := 0
	require.NoError(t, filepath.WalkDir(s.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		searched++
		require.False(t, bytes.Contains(text, []byte(secret)), "the secret is in %s", strings.TrimPrefix(path, s.dir))
		return err
	}))
	require.Greater(t, searched, 5)
}
