package git

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/lazyregexp"
)

// gitError is a run of git that failed.
type gitError struct {
	doing  string
	said   []string // the end of its output
	err    error
	remote remote
}

func (e *gitError) Unwrap() error { return e.err }

// The reasons that a release manager can do something about, by what git or ssh says; the first that fits counts. HOST stands for
// the repository's.
var reasons = []struct {
	said *lazyregexp.Regexp
	why  string
}{
	{lazyregexp.New(`No space left on device`), "the disk is full"},
	{lazyregexp.New(`Disk quota exceeded`), "the disk quota is used up"},
	{lazyregexp.New(`'credential-cache' is not a git command`), "the git of this host has no credential-cache, which a password needs"},
	{lazyregexp.New(`REMOTE HOST IDENTIFICATION HAS CHANGED|DOES NOT MATCH`), "HOST shows another host key than known_hosts has"},
	{lazyregexp.New(`Host key verification failed|host key is known for`), "the host key of HOST is not known: add it to auth.known_hosts"},
	{lazyregexp.New(`Permission denied \((publickey|gssapi|password|keyboard)`), "HOST refused the ssh key"},
	{lazyregexp.New(`Authentication failed for|error: 401`), "HOST refused the login (401): check auth.username and auth.password"},
	{lazyregexp.New(`could not read (Username|Password) for|terminal prompts disabled`), "HOST wants a login (401): set auth.password"},
	{lazyregexp.New(`error: 403`), "HOST does not let this login read the repository (403)"},
	{lazyregexp.New(`SSL certificate problem|server certificate verification failed|SSL: no alternative certificate|unable to get local issuer`),
		"the certificate of HOST cannot be verified: set auth.ca_cert if it has a CA of its own"},
	{lazyregexp.New(`Could not resolve host`), "the name of HOST cannot be resolved"},
	{lazyregexp.New(`Operation too slow|Operation timed out|Connection timed out|Timeout, server .* not responding|Connection to .* timed out|banner exchange`),
		"HOST does not answer, or too slowly"},
	{lazyregexp.New(`Connection refused|Couldn.t connect to server`), "HOST refused the connection, or cannot be reached"},
	{lazyregexp.New(`No route to host|Network is unreachable`), "HOST cannot be reached"},
	{lazyregexp.New(`transport '.*' not allowed`), "the repository, or a submodule, wants a protocol that is not allowed"},
	{lazyregexp.New(`repository '.*' not found|does not appear to be a git repository|Repository not found|error: 404`), "there is no such repository, or this login may not see it"},
}

var fatalLine = lazyregexp.New(`^(?:fatal|error|batch response): (.+)$`)

func (e *gitError) Error() string {
	all := strings.Join(e.said, "\n")
	for _, r := range reasons {
		if r.said.MatchString(all) {
			return e.doing + ": " + strings.ReplaceAll(r.why, "HOST", e.remote.where())
		}
	}
	for i := len(e.said) - 1; i >= 0; i-- {
		if parts := fatalLine.FindStringSubmatch(e.said[i]); parts != nil {
			return e.doing + ": " + parts[1]
		}
	}
	var exit *executor.ExitError
	if len(e.said) > 0 && errors.As(e.err, &exit) {
		return fmt.Sprintf("%s: git ended with exit code %d: %s", e.doing, exit.Code, e.said[len(e.said)-1])
	}
	return fmt.Sprintf("%s: %v", e.doing, e.err)
}

// says tells whether git's output has something in it.
func says(err error, form string) bool {
	var e *gitError
	return errors.As(err, &e) && regexp.MustCompile(form).MatchString(strings.Join(e.said, "\n"))
}

// remoteReason says whether a failure is known not to be the cache's fault.
func remoteReason(err error) bool {
	var e *gitError
	if !errors.As(err, &e) {
		return true
	}
	all := strings.Join(e.said, "\n")
	for _, r := range reasons {
		if r.said.MatchString(all) {
			return true
		}
	}
	return strings.Contains(all, "couldn't find remote ref") || strings.Contains(all, "not our ref")
}
