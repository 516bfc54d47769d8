// Package lazyregexp has regular expressions that are compiled when they are first used. Each step of a host is a process
// of its own, and the expressions that it has no use for would take a tenth of its time.
package lazyregexp

import (
	"os"
	"regexp"
	"strings"
	"sync"
)

var inTest = len(os.Args) > 0 && strings.HasSuffix(os.Args[0], ".test")

// Regexp is a regular expression of package regexp. It is safe for concurrent use.
type Regexp struct {
	text    string
	compile func() *regexp.Regexp
}

// New gives the expression of this text. One that does not compile panics at its first use, and at once in a test.
func New(text string) *Regexp {
	r := &Regexp{text: text, compile: sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })}
	if inTest {
		r.compile()
	}
	return r
}

// String is the text of the expression.
func (r *Regexp) String() string { return r.text }

// MatchString is Regexp.MatchString of package regexp.
func (r *Regexp) MatchString(s string) bool { return r.compile().MatchString(s) }

// FindString is Regexp.FindString of package regexp.
func (r *Regexp) FindString(s string) string { return r.compile().FindString(s) }

// FindStringSubmatch is Regexp.FindStringSubmatch of package regexp.
func (r *Regexp) FindStringSubmatch(s string) []string { return r.compile().FindStringSubmatch(s) }

// FindAllStringSubmatchIndex is Regexp.FindAllStringSubmatchIndex of package regexp.
func (r *Regexp) FindAllStringSubmatchIndex(s string, n int) [][]int {
	return r.compile().FindAllStringSubmatchIndex(s, n)
}

// ReplaceAllString is Regexp.ReplaceAllString of package regexp.
func (r *Regexp) ReplaceAllString(src, repl string) string {
	return r.compile().ReplaceAllString(src, repl)
}

// ReplaceAllStringFunc is Regexp.ReplaceAllStringFunc of package regexp.
func (r *Regexp) ReplaceAllStringFunc(src string, repl func(string) string) string {
	return r.compile().ReplaceAllStringFunc(src, repl)
}

// FindAllStringSubmatch is Regexp.FindAllStringSubmatch of package regexp.
func (r *Regexp) FindAllStringSubmatch(s string, n int) [][]string {
	return r.compile().FindAllStringSubmatch(s, n)
}
