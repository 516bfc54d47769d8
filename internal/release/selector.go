package release

import (
	"path"
	"strings"
)

// Selector picks hosts by their id, facts and labels.
//
// Its text is a comma-separated list of terms that must all hold: key=value, key!=value, key (is set), !key (is not
// set). Values may be globs. The keys id, hostname, os and arch are the agent's own; all others are labels.
// A lone * holds for every host.
type Selector struct{ terms []selectorTerm }

type selectorTerm struct {
	key, value string
	negate     bool
	present    bool // only whether the key is set matters
}

// ParseSelector reads a selector's text.
func ParseSelector(text string) (Selector, error) {
	const field = "targets.selector"
	text = strings.TrimSpace(text)
	if text == "*" {
		return Selector{}, nil
	}
	if text == "" {
		return Selector{}, Invalid(field, "is empty; * is every known agent")
	}
	var s Selector
	for _, term := range strings.Split(text, ",") {
		term = strings.TrimSpace(term)
		var t selectorTerm
		key, value, hasValue := strings.Cut(term, "=")
		switch {
		case hasValue && strings.HasSuffix(key, "!"):
			t = selectorTerm{key: strings.TrimSuffix(key, "!"), value: value, negate: true}
		case hasValue:
			t = selectorTerm{key: key, value: value}
		case strings.HasPrefix(term, "!"):
			t = selectorTerm{key: term[1:], negate: true, present: true}
		default:
			t = selectorTerm{key: term, present: true}
		}
		t.key, t.value = strings.TrimSpace(t.key), strings.TrimSpace(t.value)
		if t.key == "" || strings.ContainsAny(t.key, "!*= ") {
			return Selector{}, Invalid(field, "%q is none of key=value, key!=value, key, !key", term)
		}
		if _, err := path.Match(t.value, ""); err != nil {
			return Selector{}, Invalid(field, "%q is not a valid glob", t.value)
		}
		s.terms = append(s.terms, t)
	}
	return s, nil
}

// Matches says whether a host is picked.
func (s Selector) Matches(c *Client) bool {
	for _, t := range s.terms {
		value, set := c.attribute(t.key)
		holds := set
		if !t.present {
			matched, _ := path.Match(t.value, value)
			holds = set && matched
		}
		if holds == t.negate {
			return false
		}
	}
	return true
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
	}
	value, set := c.Labels[key]
	return value, set
}
