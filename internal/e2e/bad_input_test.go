package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
)

// Wrong input is told from right by name, stores nothing and sends nothing.
func TestBadInput(t *testing.T) {
	t.Parallel()
	s := startServer(t, serverConfig{})
	agents := startAgents(t, s, 1)
	h := newHosts(t)
	s.project("web", h)
	s.version("web", "1.0", tracing(0))
	s.post("/api/release/projects/web/versions", object{"version": "draft", "status": "draft", "script": tracing(0)}, nil)

	const projects, versions, tasks = "/api/release/projects", "/api/release/projects/web/versions", "/api/release/tasks"
	everyone := object{"selector": "*"}
	for _, tt := range []struct {
		name string
		path string
		body any    // an object, or text to send as it is
		says string // in the answer
	}{
		{"malformed JSON", tasks, `{"project": "web", `, ""},
		{"a wrong type", tasks, object{"project": 7, "version": "1.0", "action": "deploy", "targets": everyone}, "project"},
		{"an unknown key", tasks, object{"project": "web", "version": "1.0", "action": "deploy", "targets": everyone, "canarry": 1}, "canarry"},
		{"an unknown key deep down", tasks, object{"project": "web", "version": "1.0", "action": "deploy", "targets": everyone, "strategy": object{"canary": object{"percentage": 1}}}, "percentage"},
		{"no targets", tasks, object{"project": "web", "version": "1.0", "action": "deploy", "targets": object{}}, "targets"},
		{"no host is picked", tasks, object{"project": "web", "version": "1.0", "action": "deploy", "targets": object{"selector": "env=nowhere"}}, "targets"},
		{"an unknown host", tasks, object{"project": "web", "version": "1.0", "action": "deploy", "targets": object{"clients": []string{"host-1", "host-99"}}}, "host-99"},
		{"above 100 percent", tasks, object{"project": "web", "version": "1.0", "action": "deploy", "targets": everyone, "strategy": object{"canary": object{"percent": 101}}}, "strategy.canary.percent"},
		{"below 0 percent", tasks, object{"project": "web", "version": "1.0", "action": "deploy", "targets": everyone, "strategy": object{"canary": object{"percent": -1}}}, "strategy.canary.percent"},
		{"an unknown project", tasks, object{"project": "shop", "version": "1.0", "action": "deploy", "targets": everyone}, "shop"},
		{"an unknown version", tasks, object{"project": "web", "version": "9.9", "action": "deploy", "targets": everyone}, "9.9"},
		{"a draft", tasks, object{"project": "web", "version": "draft", "action": "deploy", "targets": everyone}, "draft"},
		{"a version without a script", versions, object{"version": "3.0", "status": "active", "script": object{}}, "script.install"},
		{"a version twice", versions, object{"version": "1.0", "status": "active", "script": tracing(0)}, "1.0"},
		{"a project without a name", projects, object{"type": "script"}, "name"},
		{"an unknown deployment type", projects, object{"name": "shop", "type": "telepathy"}, "type"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var code int
			var answer string
			if text, ok := tt.body.(string); ok {
				code, answer = s.call(http.MethodPost, tt.path, text)
			} else {
				code, answer = s.try(tt.path, tt.body)
			}
			require.True(t, code >= 400 && code < 500, "%d %s", code, indented(answer))
			require.Contains(t, answer, tt.says, indented(answer))
		})
	}

	t.Run("no token", func(t *testing.T) {
		resp, err := http.Get(s.url("/api/release/tasks"))
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
	})

	t.Run("YAML with an unknown key", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "version.yaml")
		require.NoError(t, os.WriteFile(file, []byte("version: \"4.0\"\nstatus: active\nscript:\n  instal: \"true\"\n"), 0o600))
		_, errs, code := s.ctl("version", "create", "--project", "web", "-f", file)
		require.NotZero(t, code)
		require.Contains(t, errs, "instal")
	})

	t.Run("malformed YAML", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "project.yaml")
		require.NoError(t, os.WriteFile(file, []byte("name: [\n"), 0o600))
		_, errs, code := s.ctl("project", "create", "-f", file)
		require.NotZero(t, code)
		require.Contains(t, errs, "project.yaml")
	})

	var page struct {
		Tasks    []release.Task    `json:"tasks"`
		Versions []release.Version `json:"versions"`
		Projects []release.Project `json:"projects"`
	}
	require.Equal(t, http.StatusOK, s.get(tasks, &page))
	require.Equal(t, http.StatusOK, s.get(versions, &page))
	require.Equal(t, http.StatusOK, s.get(projects, &page))
	require.Empty(t, page.Tasks)
	require.Len(t, page.Versions, 2)
	require.Len(t, page.Projects, 1)
	require.Empty(t, h.trace(agents[0].id))
	require.True(t, s.proc.running())
}

// Who may not join does not, and is told why.
func TestJoinRefused(t *testing.T) {
	t.Parallel()
	s := startServer(t, serverConfig{})
	startAgents(t, s, 1)

	usedUp := s.joinToken()
	first := &agent{t: t, id: "first", dir: t.TempDir(), server: s.addr}
	first.start("--token", usedUp)
	s.await(first.id, release.ClientOnline)

	for _, tt := range []struct {
		name, id, token, says string
	}{
		{"a token used up", "second", usedUp, "used"},
		{"a token of the past", "second", s.joinToken("--ttl", "1ms"), "expired"},
		{"a token for others", "second", s.joinToken("--id", "web-*"), "not for this client id"},
		{"a token that never was", "second", usedUp[:len(usedUp)-6] + "AAAAAA", "token"},
		{"a name that is taken", "host-1", s.joinToken(), "host-1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := &agent{t: t, id: tt.id, dir: t.TempDir(), server: s.addr}
			a.start("--token", tt.token)
			require.NotZero(t, a.proc.wait(20*time.Second))
			require.Contains(t, a.proc.printed(), tt.says)
		})
	}

	t.Run("a certificate of another server", func(t *testing.T) {
		other := startServer(t, serverConfig{})
		stranger := &agent{t: t, id: "stranger", dir: t.TempDir(), server: other.addr}
		stranger.start("--token", other.joinToken())
		other.await(stranger.id, release.ClientOnline)
		require.Zero(t, stranger.proc.stop())

		stranger.server = s.addr
		refused := regexp.MustCompile(`could not connect.*certificate`)
		for _, flags := range [][]string{
			nil,            // the agent does not trust this server
			{"--insecure"}, // it trusts anyone, and this server does not trust it
		} {
			require.NoError(t, os.Truncate(stranger.log(), 0))
			stranger.start(flags...)
			eventually(t, 20*time.Second, "the agent says that it is refused", func() (bool, any) {
				return refused.MatchString(stranger.proc.printed()), stranger.proc.printed()
			})
			require.Zero(t, stranger.proc.stop())
		}
		var c release.Client
		require.Equal(t, http.StatusNotFound, s.get("/api/clients/"+stranger.id, &c))
	})
}
