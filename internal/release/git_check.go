package release

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/quicflow/quicflow/internal/lazyregexp"
)

const maxKeepReleases = 100

var (
	// scpForm is git's short form of ssh: user@host:path.
	scpForm = lazyregexp.New(`^[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9][A-Za-z0-9.-]*:[^\s:][^\s]*$`)
	refForm = lazyregexp.New(`^[^-\s~^:?*\[\\[:cntrl:]][^\s~^:?*\[\\[:cntrl:]]{0,254}$`)
)

var gitSchemes = []string{"https", "http", "ssh", "file"}

func (s *GitSpec) validate(c *checker, layer Layer) {
	switch {
	case layer == LayerProject && s.Repository == "":
		c.fail("repository", "name the repository, such as git@example.com:team/site.git")
	case layer == layerMerged && s.Ref == "":
		c.fail("ref", "name a branch, tag or commit, in the version or in its project")
	}
	scheme := c.repository(s.Repository)
	if a := s.Auth; a != nil {
		web, ssh := a.Username != "" || a.Password != "" || a.CACert != "", a.SSHKey != "" || a.KnownHosts != ""
		switch {
		case web && scheme != "" && scheme != "http" && scheme != "https":
			c.fail("auth", "username, password and ca_cert are for http and https; the repository is of %s", scheme)
		case ssh && scheme != "" && scheme != "ssh":
			c.fail("auth", "ssh_key and known_hosts are for ssh; the repository is of %s", scheme)
		case a.Username != "" && a.Password == "":
			c.fail("auth.password", "is missing beside the username")
		}
		c.form("auth.username", a.Username, lineForm, "a single line")
		c.form("auth.password", a.Password, lineForm, "a single line")
		for _, pem := range []struct{ name, text string }{{"ssh_key", a.SSHKey}, {"ca_cert", a.CACert}} {
			if pem.text != "" && !hasReference(pem.text) && !strings.HasPrefix(strings.TrimSpace(pem.text), "-----BEGIN ") {
				c.fail("auth."+pem.name, "does not begin with -----BEGIN, as PEM does")
			}
		}
	}
	c.ref(s.Ref)
	if s.Depth != nil {
		c.between("depth", int64(*s.Depth), 0, 1<<30)
	}
	c.between("keep_releases", int64(s.KeepReleases), 0, maxKeepReleases)
	if s.Path == "/" {
		c.fail("path", "the root of the host cannot hold releases")
	}
	c.absolute("path", s.Path)
	for i, shared := range s.Shared {
		at := fmt.Sprintf("shared[%d]", i)
		c.relative(at, shared)
		if shared == ".git" || strings.HasPrefix(shared, ".git/") {
			c.fail(at, "%s is git's own", quote(shared))
		}
	}
	c.distinct(len(s.Shared), func(i int) (at, key string) { return fmt.Sprintf("shared[%d]", i), s.Shared[i] })
	c.form("user", s.User, userForm, "a user, or user:group")
	c.common(s.Env, s.Timeout, s.Interpreter, s.Health, s.PreScript, s.PostScript, s.Uninstall)
}

// repository checks where a repository is, and gives the scheme; empty if it cannot be known.
func (c *checker) repository(text string) (scheme string) {
	const want = "an https, http, ssh or file URL, or user@host:path"
	switch {
	case text == "":
		return ""
	case strings.HasPrefix(text, "-") || !lineForm.MatchString(text) || strings.ContainsAny(text, " \t"):
		c.fail("repository", "%s is not %s", quote(text), want)
		return ""
	case scpForm.MatchString(text) && !strings.Contains(text, "://"):
		return "ssh"
	case hasReference(text):
		scheme, _, _ = strings.Cut(text, "://")
		if !slices.Contains(gitSchemes, scheme) {
			return ""
		}
		return scheme
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || !slices.Contains(gitSchemes, u.Scheme):
		c.fail("repository", "%s is not %s", quote(text), want)
		return ""
	case u.Scheme == "file" && u.Host != "" || u.Scheme != "file" && (u.Host == "" || strings.HasPrefix(u.Host, "-")):
		c.fail("repository", "%s has no host that can be asked", quote(text))
	case u.User != nil:
		if _, has := u.User.Password(); has {
			c.fail("repository", "must not hold a password; that is auth.password")
		}
		if strings.HasPrefix(u.User.Username(), "-") {
			c.fail("repository", "must not have a user that begins with a dash")
		}
	}
	return u.Scheme
}

func (c *checker) ref(ref string) {
	switch {
	case ref == "" || hasReference(ref):
	case !refForm.MatchString(ref), strings.Contains(ref, ".."), strings.Contains(ref, "@{"), strings.Contains(ref, "//"), strings.HasPrefix(ref, "/"),
		strings.HasSuffix(ref, "/"), strings.HasSuffix(ref, "."), strings.HasSuffix(ref, ".lock"), ref == "@":
		c.fail("ref", "%s is not the name of a branch, tag or commit", quote(ref))
	}
}
