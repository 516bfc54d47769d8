package release

import (
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/quicflow/quicflow/internal/lazyregexp"
)

// Selector picks hosts by what is known of them. The zero value picks all. It is safe for concurrent use.
//
// Its text is a comma-separated list of terms that must all hold:
//
//	key              it is set
//	!key             it is not set
//	key=value        it is set to that; key==value says the same
//	key!=value       it is not set, or to something else
//	key in (a,b)     it is set to one of these
//	key notin (a,b)  it is not set, or to none of these
//	key>=4096        it is a number, and so large; likewise >, <, <=
//
// Values may be globs, as in id=web-*. A lone * picks every host.
//
// The keys id, hostname, os, arch, agent_version and status (online, reconnecting, offline) are the server's own. A key
// that begins with "facts." (or "fact.") is a path into the facts of the host's agent, such as facts.network.addresses;
// of a list, one of the elements has to match. All others are labels, where those of factKeys stand for a fact on a host that
// has no label of that name.
type Selector struct{ terms []selectorTerm }

// factKeys are facts that need no path.
var factKeys = []string{"cpus", "cpu_model", "memory_mb", "kernel", "distribution", "distribution_version", "virtualization", "capabilities"}

const (
	factsPrefix = "facts."
	factPrefix  = "fact."

	// SelectorKinds is said to whoever writes a term that is none.
	selectorKinds = "key=value, key!=value, key, !key, key in (a,b), key notin (a,b), key>=number"
)

type selectorOp int

const (
	opSet selectorOp = iota // only whether the key is set matters
	opIn                    // one of values
	opLess
	opAtMost
	opMore
	opAtLeast
)

var comparisons = map[string]selectorOp{"<": opLess, "<=": opAtMost, ">": opMore, ">=": opAtLeast}

type selectorTerm struct {
	key    string
	fact   string // path of the fact that key stands for where it is not set otherwise; empty: none
	op     selectorOp
	negate bool
	values []glob
	number float64 // of a comparison; values has its text
}

// glob is a pattern as of path.Match, in which a slash is a character like any other.
type glob struct {
	text    string
	pattern string // text without slashes; empty if text stands for itself
}

const noSlash = "\x01"

func newGlob(text string) (glob, error) {
	g := glob{text: text}
	if strings.ContainsAny(text, `*?[\`) {
		g.pattern = strings.ReplaceAll(text, "/", noSlash)
	}
	_, err := path.Match(g.pattern, "")
	return g, err
}

func (g glob) match(value string) bool {
	if g.pattern == "" {
		return g.text == value
	}
	matched, _ := path.Match(g.pattern, strings.ReplaceAll(value, "/", noSlash)) // newGlob has seen that it is one
	return matched
}

// selectorField is where selectors mostly are.
const selectorField = "targets.selector"

var listTerm = lazyregexp.New(`^([^\s=!<>,()]+)\s+(in|notin)\s*\(`)

// ParseSelector reads a selector's text. Its errors are of the field targets.selector; see ErrorAt.
func ParseSelector(text string) (Selector, error) {
	text = strings.TrimSpace(text)
	if text == "*" {
		return Selector{}, nil
	}
	if text == "" {
		return Selector{}, Invalid(selectorField, "is empty; * is every known agent")
	}
	var s Selector
	for more := true; more; {
		var term string
		term, text, more = cutTerm(text)
		t, err := parseTerm(term)
		if err != nil {
			return Selector{}, err
		}
		s.terms = append(s.terms, t)
	}
	return s, nil
}

// cutTerm splits at the first comma that is not in a list.
func cutTerm(text string) (term, rest string, more bool) {
	text = strings.TrimSpace(text)
	from := 0
	if list := listTerm.FindString(text); list != "" {
		end := strings.IndexByte(text[len(list):], ')')
		if end < 0 {
			return text, "", false
		}
		from = len(list) + end
	}
	comma := strings.IndexByte(text[from:], ',')
	if comma < 0 {
		return text, "", false
	}
	return strings.TrimSpace(text[:from+comma]), text[from+comma+1:], true
}

func parseTerm(term string) (selectorTerm, error) {
	if list := listTerm.FindStringSubmatch(term); list != nil {
		return parseList(term, list[1], list[2] == "notin", term[len(list[0]):])
	}
	key, isNot := strings.CutPrefix(term, "!")
	operator, value := "", ""
	if i := strings.IndexAny(key, "=!<>"); i >= 0 && !isNot {
		end := i + 1
		if end < len(key) && key[end] == '=' {
			end++
		}
		key, operator, value = key[:i], key[i:end], key[end:]
	}
	t := selectorTerm{key: strings.TrimSpace(key), negate: isNot || operator == "!="}
	if err := t.setKey(term); err != nil {
		return t, err
	}
	value = strings.TrimSpace(value)
	switch operator {
	case "":
		return t, nil
	case "=", "==", "!=":
		t.op = opIn
		return t, t.addValue(term, value)
	}
	var compares bool
	if t.op, compares = comparisons[operator]; !compares { // a lone !
		return t, Invalid(selectorField, "%q is none of %s", term, selectorKinds)
	}
	var err error
	if t.number, err = strconv.ParseFloat(value, 64); err != nil || math.IsNaN(t.number) || math.IsInf(t.number, 0) {
		return t, Invalid(selectorField, "%q compares with %q, which is not a number", term, value)
	}
	t.values = []glob{{text: value}}
	return t, nil
}

func parseList(term, key string, negate bool, rest string) (selectorTerm, error) {
	t := selectorTerm{key: key, op: opIn, negate: negate}
	if err := t.setKey(term); err != nil {
		return t, err
	}
	values, after, closed := strings.Cut(rest, ")")
	switch {
	case !closed:
		return t, Invalid(selectorField, "%q has no closing parenthesis", term)
	case strings.TrimSpace(after) != "":
		return t, Invalid(selectorField, "%q goes on behind its closing parenthesis; a comma is missing", term)
	}
	for value := range strings.SplitSeq(values, ",") {
		if value = strings.TrimSpace(value); value == "" {
			return t, Invalid(selectorField, "%q has an empty value in its list", term)
		}
		if err := t.addValue(term, value); err != nil {
			return t, err
		}
	}
	return t, nil
}

func (t *selectorTerm) setKey(term string) error {
	if rest, is := strings.CutPrefix(t.key, factPrefix); is {
		t.key = factsPrefix + rest
	}
	switch {
	case term == "":
		return Invalid(selectorField, "has an empty term; terms are %s", selectorKinds)
	case strings.ContainsAny(t.key, `*?[]\`) && t.op == opSet && t.key == term:
		return Invalid(selectorField, "%q is no key; id=%s picks hosts by their id", term, term)
	case t.key == "" || strings.ContainsAny(t.key, `!=<>(),*?[]\`) || strings.ContainsFunc(t.key, unicode.IsSpace):
		return Invalid(selectorField, "%q is none of %s", term, selectorKinds)
	}
	if fact, is := strings.CutPrefix(t.key, factsPrefix); is {
		if fact == "" {
			return Invalid(selectorField, "%q names no fact; facts.kernel is one", term)
		}
		t.fact = fact
	} else if slices.Contains(factKeys, t.key) {
		t.fact = t.key
	}
	return nil
}

func (t *selectorTerm) addValue(term, value string) error {
	if strings.HasPrefix(value, "=") {
		return Invalid(selectorField, "%q has too many equals signs", term)
	}
	g, err := newGlob(value)
	if err != nil {
		return Invalid(selectorField, "%q: %q is not a valid glob", term, value)
	}
	if t.key == "status" && g.pattern == "" {
		switch ClientStatus(value) {
		case ClientOnline, ClientReconnecting, ClientOffline:
		default:
			return Invalid(selectorField, "%q: a status is online, reconnecting or offline", term)
		}
	}
	t.values = append(t.values, g)
	return nil
}

// String gives a text that ParseSelector reads as the same selector.
func (s Selector) String() string {
	if len(s.terms) == 0 {
		return "*"
	}
	terms := make([]string, len(s.terms))
	for i := range s.terms {
		terms[i] = s.terms[i].String()
	}
	return strings.Join(terms, ",")
}

func (t *selectorTerm) String() string {
	switch t.op {
	case opSet:
		if t.negate {
			return "!" + t.key
		}
		return t.key
	case opIn:
		if len(t.values) == 1 {
			if t.negate {
				return t.key + "!=" + t.values[0].text
			}
			return t.key + "=" + t.values[0].text
		}
		texts := make([]string, len(t.values))
		for i, v := range t.values {
			texts[i] = v.text
		}
		if t.negate {
			return t.key + " notin (" + strings.Join(texts, ",") + ")"
		}
		return t.key + " in (" + strings.Join(texts, ",") + ")"
	}
	for sign, op := range comparisons {
		if op == t.op {
			return t.key + sign + t.values[0].text
		}
	}
	return ""
}

// Matches says whether a host is picked.
func (s Selector) Matches(c *Client) bool {
	for _, forFacts := range []bool{false, true} { // facts are read only where all else holds
		for i := range s.terms {
			if t := &s.terms[i]; (t.fact != "") == forFacts && !t.matches(c) {
				return false
			}
		}
	}
	return true
}

func (t *selectorTerm) matches(c *Client) bool {
	value, set := c.attribute(t.key)
	if !set && t.fact != "" {
		return factHolds(c.Facts, t.fact, t) != t.negate
	}
	return set && t.holds(value) != t.negate || !set && t.negate
}

// holds says whether the term, without its negation, holds for a value that is set.
func (t *selectorTerm) holds(value string) bool {
	switch t.op {
	case opSet:
		return true
	case opIn:
		for _, g := range t.values {
			if g.match(value) {
				return true
			}
		}
		return false
	}
	number, err := strconv.ParseFloat(value, 64)
	if err != nil {
		return false
	}
	switch t.op {
	case opLess:
		return number < t.number
	case opAtMost:
		return number <= t.number
	case opMore:
		return number > t.number
	}
	return number >= t.number
}

// The keys of what the server itself knows of a host.
var ownKeys = []string{"id", "hostname", "os", "arch", "agent_version", "status"}

// Uses says whether it makes a difference to the selector what a host's attribute is: one of the own keys, "labels" or
// "facts".
func (s Selector) Uses(attribute string) bool {
	return slices.ContainsFunc(s.terms, func(t selectorTerm) bool {
		switch {
		case attribute == "facts":
			return t.fact != ""
		case slices.Contains(ownKeys, t.key):
			return t.key == attribute
		}
		return attribute == "labels" && !strings.HasPrefix(t.key, factsPrefix)
	})
}

// Required is a condition that a selector implies: what Key names, an own key or a label, is set to one of Values.
type Required struct {
	Key    string
	Label  bool
	Values []string
}

// Requires gives conditions that hold for every host that is picked, for those who want to look at fewer hosts.
func (s Selector) Requires() []Required {
	var all []Required
	for _, t := range s.terms {
		own := slices.Contains(ownKeys, t.key)
		if t.op != opIn || t.negate || t.fact != "" || slices.ContainsFunc(t.values, func(g glob) bool { return g.pattern != "" }) {
			continue
		}
		r := Required{Key: t.key, Label: !own}
		for _, g := range t.values {
			r.Values = append(r.Values, g.text)
		}
		all = append(all, r)
	}
	return all
}

func (c *Client) attribute(key string) (string, bool) {
	switch key {
	case "id":
		return c.ID, true
	case "hostname":
		return c.Hostname, true
	case "os":
		return c.OS, true
	case "arch":
		return c.Arch, true
	case "agent_version":
		return c.AgentVersion, true
	case "status":
		return string(c.Status), true
	}
	value, set := c.Labels[key]
	return value, set && !strings.HasPrefix(key, factsPrefix)
}
