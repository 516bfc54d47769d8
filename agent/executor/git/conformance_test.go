package git_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/executortest"
	"github.com/quicflow/quicflow/agent/executor/wrapper"
	"github.com/quicflow/quicflow/internal/release"
)

func TestGitConforms(t *testing.T) {
	r := newRepo(t)
	for n := range 4 {
		r.tag(fmt.Sprintf("%d.0", n+1))
	}
	backend := &cgi.Handler{
		Path: filepath.Join(execPath(t), "git-http-backend"), Dir: r.root, Stderr: io.Discard,
		Env: []string{"GIT_PROJECT_ROOT=" + r.root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "HOME=/nonexistent"},
	}
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
		if _, token, _ := in.BasicAuth(); token == "" {
			out.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			out.WriteHeader(http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(out, in)
	}))
	t.Cleanup(server.Close)
	effects := func(step *executor.Step) string {
		return filepath.Join(step.Host.DataDir, "effects-"+strings.ReplaceAll(step.ID, "/", "-"))
	}
	executortest.Conformance(t, executortest.Factory{
		New: func(t testing.TB) executor.Executor {
			return executortest.NewExecutor(t, wrapper.Config{Worker: worker})
		},
		Config: func(_ testing.TB, behaviour executortest.Behaviour, step *executor.Step) release.Merged {
			spec := release.GitSpec{Repository: r.url(), Ref: step.Version, Env: map[string]string{"EFFECTS": effects(step)}, Timeout: release.Duration(time.Minute)}
			spec.PreScript = "echo x >> $EFFECTS\n" + map[executortest.Behaviour]string{
				executortest.TakesASec: "sleep 1",
				executortest.Fails:     "echo no disk >&2; exit 4",
				executortest.Blocks:    "sleep 1000",
			}[behaviour]
			switch behaviour {
			case executortest.Wrong:
				spec.Path = "relative"
			case executortest.UsesASecret:
				spec.Repository = server.URL + "/site.git"
				spec.Auth = &release.GitAuth{Password: "${TOKEN}"}
			}
			return release.Merge(release.Project{Type: release.TypeGit, Spec: release.Spec{Git: &spec}}, release.Version{}, release.Override{})
		},
		Effects: func(_ testing.TB, step *executor.Step) int {
			text, _ := os.ReadFile(effects(step))
			return strings.Count(string(text), "\n")
		},
		Timeout: 3 * time.Second,
	})
}
