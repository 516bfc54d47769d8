//go:build failpoint

package git_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/release"
)

// serveLFS adds an LFS server to a web server of repositories: objects by their SHA-256, behind the same login.
func (s *webServer) serveLFS(objects map[string]string) {
	repositories := s.Config.Handler
	s.Config.Handler = http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
		oid, isObject := strings.CutPrefix(in.URL.Path, "/objects/")
		switch {
		case isObject:
			_, _ = out.Write([]byte(objects[oid]))
		case strings.HasSuffix(in.URL.Path, "/info/lfs/objects/batch"):
			if u, p, _ := in.BasicAuth(); u != "git" || p != password {
				out.Header().Set("WWW-Authenticate", `Basic realm="git"`)
				out.WriteHeader(http.StatusUnauthorized)
				return
			}
			var wanted struct {
				Objects []struct {
					OID  string `json:"oid"`
					Size int64  `json:"size"`
				} `json:"objects"`
			}
			_ = json.NewDecoder(in.Body).Decode(&wanted)
			var answer []map[string]any
			for _, o := range wanted.Objects {
				answer = append(answer, map[string]any{"oid": o.OID, "size": o.Size, "actions": map[string]any{
					"download": map[string]any{"href": s.URL + "/objects/" + o.OID}}})
			}
			out.Header().Set("Content-Type", "application/vnd.git-lfs+json")
			_ = json.NewEncoder(out).Encode(map[string]any{"transfer": "basic", "objects": answer})
		case strings.Contains(in.URL.Path, "/info/lfs/"):
			http.NotFound(out, in)
		default:
			repositories.ServeHTTP(out, in)
		}
	})
}

func TestLFS(t *testing.T) {
	require.NoError(t, exec.Command("git", "lfs", "version").Run(), "git-lfs is needed: scripts/install-deps.sh git-lfs")
	h, r := newHost(t), newRepo(t)
	objects := map[string]string{}
	pointer := func(content string) string {
		sum := sha256.Sum256([]byte(content))
		oid := hex.EncodeToString(sum[:])
		objects[oid] = content
		return fmt.Sprintf("version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n", oid, len(content))
	}
	r.commit(map[string]string{".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", "big.bin": pointer("large content one")})
	r.tag("v1")
	r.commit(map[string]string{"big.bin": pointer("large content two")})
	r.tag("v2")
	server := serveWeb(t, r, "git", password, true)
	server.serveLFS(objects)
	spec := release.GitSpec{Repository: server.repository(), LFS: true, Auth: &release.GitAuth{Password: password, CACert: server.ca}}

	step := h.step(release.StepInstall, "v1", spec)
	w := watch(t, []string{passwordPart}, h.dir)
	require.NoError(t, h.work(step), "%s", h.log())
	w.nothing(t)
	require.Equal(t, "large content one", h.current("big.bin"))
	h.deploy(release.StepUpdate, "v2", spec)
	require.Equal(t, "large content two", h.current("big.bin"))
	require.Equal(t, executor.RunOK, h.describe(spec).State)
	path := filepath.Join(h.base, "current", "big.bin")
	require.NoError(t, os.WriteFile(path, []byte("large content two"), 0o644))
	require.Equal(t, executor.RunOK, h.describe(spec).State, "the same content again is no change")
	require.NoError(t, os.WriteFile(path, []byte("other"), 0o644))
	require.Equal(t, "files differ: big.bin", h.describe(spec).Reason)

	// An object that its server does not have.
	for oid := range objects {
		objects[oid] = "something else"
	}
	require.NoError(t, os.RemoveAll(filepath.Join(h.base, ".quicflow", "repo.git")))
	link := h.currentLink()
	require.Contains(t, h.refused(h.step(release.StepUpdate, "v1", spec)), "check out")
	require.Equal(t, link, h.currentLink())

	// Without the option the pointers stay pointers.
	without := spec
	without.LFS = false
	h.deploy(release.StepUpdate, "v1", without)
	require.Contains(t, h.current("big.bin"), "oid sha256:")

	// Without the program it is refused.
	real, err := exec.LookPath("git")
	require.NoError(t, err)
	bin := filepath.Join(h.dir, "bin")
	require.NoError(t, os.Mkdir(bin, 0o755))
	script := "#!/bin/sh\nfor a; do [ \"$a\" = lfs ] && { echo \"git: 'lfs' is not a git command.\" >&2; exit 1; }; done\nexec " + real + " \"$@\"\n"
	require.NoError(t, os.WriteFile(filepath.Join(bin, "git"), []byte(script), 0o755))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	require.Contains(t, h.refused(h.step(release.StepUpdate, "v1", spec)), "git-lfs is not installed on this host")
	h.clean()
}
