package git

import (
	"bytes"
	"io"
	"strings"
)

// Limits of what is kept of a program's output.
const (
	maxTailLines  = 40
	maxLineBytes  = 4 << 10
	maxListingLen = 16 << 20 // of the refs of a repository
)

// output passes a program's output on in whole lines, without secrets, and keeps its end.
type output struct {
	to      io.Writer // nil: only kept
	secrets []string
	partial []byte
	tail    []string
}

func (o *output) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		end := bytes.IndexAny(rest, "\r\n")
		if end < 0 {
			o.partial = append(o.partial, rest...)
			break
		}
		o.partial = append(o.partial, rest[:end]...)
		o.line()
		rest = rest[end+1:]
	}
	if len(o.partial) > maxLineBytes {
		o.line()
	}
	return len(p), nil
}

// flush ends a line that has no end.
func (o *output) flush() { o.line() }

func (o *output) line() {
	text := redact(string(o.partial), o.secrets)
	o.partial = o.partial[:0]
	if strings.TrimSpace(text) == "" {
		return
	}
	if o.to != nil {
		_, _ = io.WriteString(o.to, text+"\n")
	}
	if o.tail = append(o.tail, text); len(o.tail) > maxTailLines {
		o.tail = o.tail[1:]
	}
}

// redact replaces secrets: a host may say what it was told.
func redact(text string, secrets []string) string {
	for _, s := range secrets {
		text = strings.ReplaceAll(text, s, "***")
	}
	return text
}

// limited keeps up to limit bytes.
type limited struct {
	bytes.Buffer
	limit int
	over  bool
}

func (l *limited) Write(p []byte) (int, error) {
	if l.Len()+len(p) > l.limit {
		l.over = true
		return len(p), nil
	}
	return l.Buffer.Write(p)
}
