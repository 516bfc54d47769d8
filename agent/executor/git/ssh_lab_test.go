//go:build failpoint

// The tests with this build tag need root, sshd, git-lfs, or a build in which lines can kill the process: make test-integration.
package git_test

import (
	"crypto/rand"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/lab/sshd"
	"github.com/quicflow/quicflow/internal/release"
)

// sshServer is an sshd of the test's own.
type sshServer struct {
	address    string // host:port
	user       string
	key        string // private key to log in with
	knownHosts string
}

func newKey(t *testing.T, passphrase string) (private, public string) {
	t.Helper()
	private, public, err := sshd.NewKey(passphrase)
	require.NoError(t, err)
	return private, public
}

func startSSH(t *testing.T) *sshServer {
	t.Helper()
	s, err := sshd.Start(shortDir(t))
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return &sshServer{s.Address, s.User, s.Key, s.KnownHosts}
}

func (s *sshServer) repository(r *repo) string { return "ssh://" + s.user + "@" + s.address + r.bare() }

// keyLine is a piece of a key that is in it alone.
func keyLine(key string) string { return strings.Split(key, "\n")[2] }

// The key for ssh goes to ssh over the agent's protocol alone.
func TestSSH(t *testing.T) {
	h, r, server := newHost(t), newRepo(t), startSSH(t)
	commit := r.tag("v1")
	spec := release.GitSpec{Repository: server.repository(r), Auth: &release.GitAuth{SSHKey: server.key, KnownHosts: server.knownHosts}}
	step := h.step(release.StepInstall, "v1", spec)
	w := watch(t, []string{keyLine(server.key)}, h.dir)
	require.NoError(t, h.work(step), "%s", h.log())
	w.nothing(t)
	require.Equal(t, commit, h.reported().Details["commit"])
	h.clean()

	// By commit; and with what a copy from a web form does to a key.
	r.commit(map[string]string{"x": "y"})
	spec.Ref = commit
	spec.Auth.SSHKey = strings.ReplaceAll("\n"+server.key+"\n", "\n", "\r\n")
	require.Equal(t, commit, h.deploy(release.StepUpdate, "c", spec).Details["commit"])

	refs, err := worker.Refs(t.Context(), &release.GitSpec{Repository: spec.Repository, Auth: &release.GitAuth{SSHKey: server.key, KnownHosts: server.knownHosts}})
	require.NoError(t, err)
	require.Len(t, refs, 2)

	link := h.currentLink()
	spec.Ref = ""
	stranger, _ := newKey(t, "")
	locked, _ := newKey(t, "passphrase")
	_, otherHost := newKey(t, "")
	host, _, _ := strings.Cut(server.knownHosts, " ")
	for want, auth := range map[string]release.GitAuth{
		"refused the ssh key":                      {SSHKey: stranger, KnownHosts: server.knownHosts},
		"the key has a passphrase":                 {SSHKey: locked, KnownHosts: server.knownHosts},
		"not a private key that can be read":       {SSHKey: "nonsense", KnownHosts: server.knownHosts},
		"is not known: add it to auth.known_hosts": {SSHKey: server.key, KnownHosts: "example.com " + otherHost},
		"shows another host key than known_hosts":  {SSHKey: server.key, KnownHosts: host + " " + otherHost},
	} {
		spec.Auth = &auth
		text := h.refused(h.step(release.StepUpdate, "v1", spec))
		require.Contains(t, text, want)
		require.NotContains(t, text, auth.SSHKey)
		require.Equal(t, link, h.currentLink())
		h.clean()
	}
	spec.Auth = &release.GitAuth{SSHKey: server.key, KnownHosts: server.knownHosts}
	spec.Repository = "ssh://" + server.user + "@" + server.address + "/no/such/$(id).git"
	require.Contains(t, h.refused(h.step(release.StepUpdate, "v1", spec)), "no such repository")
	h.clean()
}

// A host that accepts connections and says nothing is given up.
func TestSSHHangs(t *testing.T) {
	h := newHost(t)
	key, _ := newKey(t, "")
	address := silent(t)
	spec := release.GitSpec{Repository: "ssh://git@" + address + "/x", Auth: &release.GitAuth{SSHKey: key}}
	require.Contains(t, h.refused(h.step(release.StepInstall, "v1", spec)), address+" does not answer")
	h.clean()
}

// As root, git and the scripts run as the user that is asked for, and the files are its own.
func TestUser(t *testing.T) {
	require.Zero(t, os.Geteuid(), "this test needs root")
	h, r, server := newHost(t), newRepo(t), startSSH(t)
	r.commit(map[string]string{"storage/x": "1"})
	r.tag("v1")
	nobody, err := user.Lookup("nobody")
	require.NoError(t, err)
	uid, _ := strconv.Atoi(nobody.Uid)
	spec := release.GitSpec{
		Repository: server.repository(r), Auth: &release.GitAuth{SSHKey: server.key, KnownHosts: server.knownHosts},
		User: "nobody", Shared: []string{"storage"}, PreScript: "id -u > who",
	}
	h.deploy(release.StepInstall, "v1", spec)
	require.Equal(t, nobody.Uid, h.current("who"))
	require.NoError(t, filepath.WalkDir(h.base, func(path string, e os.DirEntry, err error) error {
		require.NoError(t, err)
		relative, _ := filepath.Rel(h.base, path)
		info, err := os.Lstat(path)
		require.NoError(t, err)
		owner := int(info.Sys().(*syscall.Stat_t).Uid)
		if strings.HasPrefix(relative, ".quicflow") && !strings.HasPrefix(relative, ".quicflow/repo.git") {
			require.Zero(t, owner, "%s: QuicFlow's own records are not for others to write", relative)
		} else {
			require.Equal(t, uid, owner, relative)
		}
		return nil
	}))
	require.Equal(t, executor.RunOK, h.describe(spec).State)
	h.clean()

	// The same project for another user, or none.
	spec.User = ""
	h.deploy(release.StepUpdate, "v1", spec)
	require.Equal(t, "0", h.current("who"))
	spec.User = "nobody"
	h.deploy(release.StepUpdate, "v1", spec)
	require.Equal(t, executor.RunOK, h.describe(spec).State)
	h.clean()

	spec.User = "no-such-user"
	require.Contains(t, h.refused(h.step(release.StepUpdate, "v1", spec)), `no user "no-such-user"`)
	spec.User, spec.Path = "nobody", filepath.Join(h.dir, "closed", "site")
	require.NoError(t, os.Mkdir(filepath.Join(h.dir, "closed"), 0o700))
	require.Contains(t, h.refused(h.step(release.StepUpdate, "v1", spec)), "nobody cannot enter")
	require.Empty(t, names(filepath.Join(h.dir, "tmp")))
}

func TestDiskFull(t *testing.T) {
	require.Zero(t, os.Geteuid(), "this test needs root")
	h, r := newHost(t), newRepo(t)
	r.tag("v1")
	big := make([]byte, 8<<20)
	_, _ = rand.Read(big)
	require.NoError(t, os.Mkdir(h.base, 0o755))
	require.NoError(t, syscall.Mount("tmpfs", h.base, "tmpfs", 0, "size=4m"))
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(h.base, 0)) })
	h.deploy(release.StepInstall, "v1", release.GitSpec{Repository: r.url()})
	link := h.currentLink()
	r.commit(map[string]string{"big": string(big)})
	r.tag("v2")
	require.Contains(t, h.refused(h.step(release.StepUpdate, "v2", release.GitSpec{Repository: r.url()})), "the disk is full")
	require.Equal(t, link, h.currentLink())
	require.Equal(t, executor.RunOK, h.describe(release.GitSpec{}).State)
	require.Len(t, h.releases(), 1)
	h.clean()
	// And the next one goes well.
	r.git(r.work, "rm", "-q", "big")
	r.tag("v3")
	h.deploy(release.StepUpdate, "v3", release.GitSpec{Repository: r.url()})
	require.Equal(t, "v3", h.current("version"))
}
