package container

import (
	"errors"
	"fmt"
	"strings"

	cerrdefs "github.com/containerd/errdefs"

	"github.com/quicflow/quicflow/internal/lazyregexp"
)

const maxLine = 400 // of a reason, in bytes

// firstLine makes one line of a text, of bounded length.
func firstLine(text string) string {
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	if len(text) > maxLine {
		text = strings.ToValidUTF8(text[:maxLine], "") + "…"
	}
	return text
}

// lastLine gives the last line of an output that is not empty.
func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return firstLine(text[strings.LastIndexByte(text, '\n')+1:])
}

// problem is an engine's error in one line, with the whole text for the log.
type problem struct {
	line  string
	cause error
}

func (p *problem) Error() string { return p.line }
func (p *problem) Unwrap() error { return p.cause }

// plain makes an engine's error short.
func plain(err error) error {
	var known *problem
	if err == nil || errors.As(err, &known) {
		return err
	}
	text := err.Error()
	for _, prefix := range []string{"Error response from daemon: ", "error during connect: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	if full(text) {
		return &problem{"the disk of the Docker engine is full", err}
	}
	return &problem{firstLine(text), err}
}

func full(text string) bool {
	return strings.Contains(text, "no space left on device") || strings.Contains(text, "disk quota exceeded")
}

// pullError says why an image did not come.
func pullError(reference string, login bool, err error) error {
	text := wordsOf(err.Error(), reference)
	has := func(parts ...string) bool {
		for _, part := range parts {
			if strings.Contains(text, part) {
				return true
			}
		}
		return false
	}
	why := firstLine(strings.TrimPrefix(err.Error(), "Error response from daemon: "))
	switch {
	case full(text):
		why = "the disk of the Docker engine is full"
	case has("unauthorized", "no basic auth credentials", "authentication required", "incorrect username or password"), unauthorized.MatchString(text):
		why = "the registry wants a login"
		if login {
			why = "the registry refused the login"
		}
	case has("pull access denied"):
		why = "not found, or the registry wants a login"
		if login {
			why = "not found, or this login may not read it"
		}
	case has("denied", "forbidden"):
		why = "the registry denied access"
	case has("manifest unknown", "not found", "name unknown", "no such image"):
		why = "not found"
	case has("no matching manifest", "does not match the specified platform"):
		why = "not there for this platform"
	case has("connection refused", "no such host", "i/o timeout", "network is unreachable", "no route to host", "context deadline exceeded", "client.timeout"):
		why = "the registry cannot be reached: " + lastPart(err.Error())
	}
	return &problem{fmt.Sprintf("image %s: %s", reference, why), err}
}

var (
	addresses    = lazyregexp.New(`https?://\S+`)
	unauthorized = lazyregexp.New(`\b401\b`)
)

// wordsOf gives what an engine says in small letters, without what it speaks of: an image may be called denied, and a tag 401.
func wordsOf(text, reference string) string {
	text = addresses.ReplaceAllString(text, "")
	_, path, _ := strings.Cut(reference, "/")
	for _, name := range []string{reference, path} {
		if name != "" {
			text = strings.ReplaceAll(text, name, "")
		}
	}
	return strings.ToLower(text)
}

// lastPart gives what a chain of errors comes down to.
func lastPart(text string) string {
	return firstLine(text[strings.LastIndex(text, ": ")+1:])
}

// Engines before 28, and those since.
var portInError = lazyregexp.New(`(?:Bind for|listen (?:tcp|udp|sctp)[46]?|bind host port(?: for)?) \S*?:(\d+)(?:[/: ]|$)`)

// portTaken gives the port that a container did not get.
func portTaken(err error) (port string, taken bool) {
	if err == nil || !strings.Contains(err.Error(), "already allocated") && !strings.Contains(err.Error(), "address already in use") {
		return "", false
	}
	if m := portInError.FindStringSubmatch(err.Error()); m != nil {
		return m[1], true
	}
	var p *problem
	if errors.As(err, &p) && p.cause != nil {
		if m := portInError.FindStringSubmatch(p.cause.Error()); m != nil {
			return m[1], true
		}
	}
	return "", false
}

// startError says why a container did not start.
func startError(err error) error {
	text := err.Error()
	var p *problem
	if errors.As(err, &p) && p.cause != nil {
		text = p.cause.Error()
	}
	switch {
	case full(text):
		return &problem{"the container did not start: the disk of the Docker engine is full", err}
	case strings.Contains(text, "could not select device driver"):
		return &problem{"gpus: the Docker engine of this host cannot give a container GPUs", err}
	case cerrdefs.IsNotFound(err) && strings.Contains(text, "network"):
		return &problem{firstLine(text), err}
	}
	return &problem{"the container did not start: " + firstLine(text), err}
}
