package git

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/quicflow/quicflow/internal/lazyregexp"
	"github.com/quicflow/quicflow/internal/release"
)

// remote is a repository's address.
type remote struct {
	url    string
	scheme string // https, http, ssh, file
	host   string // with the port if there is one; empty of a file
	name   string // for people: without what could be secret
}

var scpForm = lazyregexp.New(`^(?:([A-Za-z0-9._][A-Za-z0-9._-]*)@)?([A-Za-z0-9._][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\]):(.+)$`)

// parseRemote reads an address. What git would take for something else than one of the four kinds is refused: "ext::sh -c …" runs
// a program.
func parseRemote(text string) (remote, error) {
	wrong := func(why string) (remote, error) {
		return remote{}, release.Invalid("git.repository", "%s", why)
	}
	for _, c := range text {
		if c < ' ' || c == 0x7f {
			return wrong("the address of the repository has a control character in it")
		}
	}
	if !strings.Contains(text, "://") {
		parts := scpForm.FindStringSubmatch(text)
		if parts == nil || strings.HasPrefix(parts[3], ":") {
			return wrong(fmt.Sprintf("%q is none of https://…, http://…, ssh://…, file://… and user@host:path", text))
		}
		return remote{url: text, scheme: "ssh", host: parts[2], name: text}, nil
	}
	u, err := url.Parse(text)
	if err != nil {
		return wrong("it is not a URL") // the error would quote it, with what it holds
	}
	r := remote{url: text, scheme: u.Scheme, host: u.Host, name: u.Redacted()}
	_, password := u.User.Password()
	switch {
	case u.Scheme == "file":
		if u.Host != "" || u.User != nil || !strings.HasPrefix(u.Path, "/") {
			return wrong(fmt.Sprintf("%q is not file:///path", r.name))
		}
	case u.Scheme != "https" && u.Scheme != "http" && u.Scheme != "ssh":
		return wrong(fmt.Sprintf("%q is none of https, http, ssh and file", u.Scheme))
	case u.Hostname() == "" || strings.HasPrefix(u.Hostname(), "-") || strings.HasPrefix(u.User.Username(), "-"):
		return wrong(fmt.Sprintf("%q names no host", r.name))
	case password || u.Scheme != "ssh" && u.User != nil:
		return wrong("the address has a login in it: user name and password belong into auth")
	}
	return r, nil
}

// checkAuth says what of a login has no effect on this repository, or cannot be used.
func (r remote) checkAuth(auth *release.GitAuth) error {
	if auth == nil {
		return nil
	}
	wrong := func(field, why string) error {
		return release.Invalid("git.auth."+field, "has no effect: %s, and the repository is %s", why, r.name)
	}
	web := r.scheme == "https" || r.scheme == "http"
	switch {
	case !web && auth.Username != "":
		return wrong("username", "it is for http and https")
	case !web && auth.Password != "":
		return wrong("password", "it is for http and https")
	case r.scheme != "https" && auth.CACert != "":
		return wrong("ca_cert", "it is for https")
	case r.scheme != "ssh" && auth.SSHKey != "":
		return wrong("ssh_key", "it is for ssh")
	case r.scheme != "ssh" && auth.KnownHosts != "":
		return wrong("known_hosts", "it is for ssh")
	case strings.ContainsAny(auth.Username+auth.Password, "\n\x00"):
		return release.Invalid("git.auth", "user name and password cannot have line breaks")
	case auth.Username != "" && auth.Password == "":
		return release.Invalid("git.auth.password", "a user name is of no use without it")
	}
	return nil
}

// protocols are those that git may use for the repository and its submodules: never a file of the host, or a transport without
// encryption, unless the repository itself is one.
func (r remote) protocols() string {
	if r.scheme == "https" || r.scheme == "ssh" {
		return "https:ssh"
	}
	return "https:ssh:" + r.scheme
}

// scope is the URL that a login is for.
func (r remote) scope() string { return r.scheme + "://" + r.host }

// host that messages name.
func (r remote) where() string {
	if r.scheme == "file" {
		return r.name
	}
	return r.host
}

// The rules of git check-ref-format, and no name that git could take for an option or a revision of another kind.
func checkRef(ref string) error {
	wrong := func(why string) error { return release.Invalid("git.ref", "%q %s", ref, why) }
	switch {
	case ref == "":
		return wrong("is empty")
	case len(ref) > 1024:
		return release.Invalid("git.ref", "it is longer than 1024 bytes")
	case strings.HasPrefix(ref, "-"):
		return wrong("begins with -")
	case strings.Contains(ref, "..") || strings.Contains(ref, "@{") || strings.Contains(ref, "//") || ref == "@",
		strings.HasPrefix(ref, "/") || strings.HasSuffix(ref, "/") || strings.HasSuffix(ref, "."):
		return wrong("is not a name that git allows")
	}
	for _, c := range ref {
		if c <= ' ' || c == 0x7f || strings.ContainsRune(`~^:?*[\`, c) {
			return wrong("is not a name that git allows: it has " + fmt.Sprintf("%q", c) + " in it")
		}
	}
	for part := range strings.SplitSeq(ref, "/") {
		if strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
			return wrong("is not a name that git allows")
		}
	}
	return nil
}

var (
	wholeCommit  = lazyregexp.New(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
	commitPrefix = lazyregexp.New(`^[0-9a-f]{7,63}$`)
)

// What a ref may be.
const (
	KindBranch = "branch"
	KindTag    = "tag"
	KindCommit = "commit"
)

var listed = lazyregexp.New(`^([0-9a-f]{40}|[0-9a-f]{64})\t(HEAD|refs/\S+)$`)

// listing is what git ls-remote told: commits by full names. Of annotated tags it has the commit, not the tag object.
type listing struct {
	commits map[string]string
	order   []string
	head    string // full name of the branch that HEAD names
}

func parseListing(text string) listing {
	l := listing{commits: map[string]string{}}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if target, ok := strings.CutPrefix(line, "ref: "); ok {
			if name, ok := strings.CutSuffix(target, "\tHEAD"); ok {
				l.head = name
			}
			continue
		}
		parts := listed.FindStringSubmatch(line)
		if parts == nil {
			continue
		}
		name, peeled := strings.CutSuffix(parts[2], "^{}")
		if _, known := l.commits[name]; !known {
			l.order = append(l.order, name)
		} else if !peeled {
			continue
		}
		l.commits[name] = parts[1]
	}
	return l
}

// find picks the ref that a configuration names; nil if there is none.
func (l listing) find(ref string) (*release.GitRef, error) {
	if strings.HasPrefix(ref, "refs/") {
		commit, ok := l.commits[ref]
		if !ok {
			return nil, nil
		}
		return &release.GitRef{Name: ref, Kind: kindOf(ref), Commit: commit}, nil
	}
	branch, isBranch := l.commits["refs/heads/"+ref]
	tag, isTag := l.commits["refs/tags/"+ref]
	switch {
	case isBranch && isTag && branch != tag:
		return nil, release.Invalid("git.ref", "%q is both a branch (%.12s) and a tag (%.12s): say refs/heads/%s or refs/tags/%s",
			ref, branch, tag, ref, ref)
	case isTag:
		return &release.GitRef{Name: "refs/tags/" + ref, Kind: KindTag, Commit: tag}, nil
	case isBranch:
		return &release.GitRef{Name: "refs/heads/" + ref, Kind: KindBranch, Commit: branch}, nil
	}
	return nil, nil
}

func kindOf(name string) string {
	if strings.HasPrefix(name, "refs/tags/") {
		return KindTag
	}
	return KindBranch
}
