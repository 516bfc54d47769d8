package e2e

import (
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/lab/sshd"
	"github.com/quicflow/quicflow/internal/release"
)

const gitPassword = "s3cret-of-the-repository"

// gitKind is a repository behind HTTP with a password, and a site that is checked out of it.
func gitKind(t *testing.T) kind {
	root := t.TempDir()
	repository(t, root)
	server := httptest.NewServer(gitServer(t, root))
	t.Cleanup(server.Close)
	return siteOf(t, server.URL+"/site.git", object{"username": "deploy", "password": gitPassword})
}

// gitSSHKind is the same behind sshd, with a key that is a secret of the project.
func gitSSHKind(t *testing.T) kind {
	root := t.TempDir()
	repository(t, root)
	server, err := sshd.Start(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(server.Close)
	k := siteOf(t, "ssh://"+server.User+"@"+server.Address+root+"/site.git", object{"ssh_key": "${DEPLOY_KEY}", "known_hosts": server.KnownHosts})
	k.secrets = map[string]string{"DEPLOY_KEY": server.Key}
	return k
}

// siteOf is a site that is checked out of a repository.
func siteOf(t *testing.T, url string, auth object) kind {
	site := filepath.Join(t.TempDir(), "site")
	index := filepath.Join(site, "current", "index.html")
	return kind{
		name: "git",
		project: object{
			"repository": url, "auth": auth,
			"path": site, "keep_releases": 2, "pre_script": "test -s index.html",
			"health": object{"exec": "test -s " + index, "interval": "50ms", "retries": 2},
		},
		version: func(n string) object { return object{"ref": n} },
		broken:  object{"ref": "v3", "health": object{"exec": "echo no such page; exit 1", "interval": "50ms", "retries": 2}},
		why:     "no such page",
		serves: func() string {
			text, _ := os.ReadFile(index)
			return strings.TrimSpace(string(text))
		},
		harm:  func() { require.NoError(t, os.WriteFile(index, []byte("by hand\n"), 0o600)) },
		drift: release.DriftChanged,
		left: func() (names []string) {
			entries, _ := os.ReadDir(site)
			for _, e := range entries {
				names = append(names, e.Name())
			}
			return names
		},
		lines: map[string][]string{
			"update":    {"git.login", "git.fetched", "git.checkedout", "git.built", "git.linked", "git.switched", "git.recorded", "git.pruned"},
			"broken":    {"git.switched", "git.failed", "git.back"},
			"rollback":  {"git.linked"},
			"uninstall": {"git.uninstall.current", "git.uninstall.releases"},
		},
	}
}

// repository makes a bare repository site.git whose tags v1, v2 and v3 have an index.html that says so.
func repository(t *testing.T, root string) {
	t.Helper()
	work := filepath.Join(t.TempDir(), "work")
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=e2e", "-c", "user.email=e2e@localhost", "-c", "init.defaultBranch=main"}, args...)...)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "git %v: %s", args, out)
	}
	git("init", "-q", work)
	for _, version := range []string{"v1", "v2", "v3"} {
		require.NoError(t, os.WriteFile(filepath.Join(work, "index.html"), []byte(version+"\n"), 0o600))
		git("-C", work, "add", ".")
		git("-C", work, "commit", "-q", "-m", version)
		git("-C", work, "tag", version)
	}
	git("clone", "-q", "--bare", work, filepath.Join(root, "site.git"))
}

// gitServer is git's own server behind a password.
func gitServer(t *testing.T, root string) http.Handler {
	t.Helper()
	path, err := exec.Command("git", "--exec-path").Output()
	require.NoError(t, err)
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1"},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "deploy" || password != gitPassword {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	})
}

func TestDeployGit(t *testing.T) {
	t.Parallel()
	testDeploy(t, gitKind(t))
}

func TestDeployGitSSH(t *testing.T) {
	t.Parallel()
	testDeploy(t, gitSSHKind(t))
}

// What there is to deploy is asked of the repository by an agent, with a login that only it sees.
func TestDeployGitRefs(t *testing.T) {
	t.Parallel()
	k := gitKind(t)
	k.project["auth"] = object{"username": "deploy", "password": "${GIT_PASSWORD}"}
	w := deployOn(t, k, serverConfig{})
	code, _ := w.call(http.MethodPut, "/api/release/projects/shop/variables/GIT_PASSWORD", `{"value":"`+gitPassword+`","secret":true}`)
	require.Contains(t, []int{200, 201}, code)
	out, errs, exit := w.ctl("project", "refs", "shop")
	require.Zero(t, exit, errs)
	require.Regexp(t, `branch +main \(default\) .*\ntag +v3 .*\ntag +v2 .*\ntag +v1 `, out)
	require.NotContains(t, out+errs, gitPassword)

	code, _ = w.call(http.MethodPut, "/api/release/projects/shop/variables/GIT_PASSWORD", `{"value":"another","secret":true}`)
	require.Equal(t, 200, code)
	_, errs, exit = w.ctl("project", "refs", "shop")
	require.Equal(t, 1, exit)
	require.Contains(t, errs, "agent host-1: ")
	require.NotContains(t, errs, "another")
}

func TestDeployGitKilled(t *testing.T) {
	t.Parallel()
	testDeployKilled(t, gitKind(t))
}
