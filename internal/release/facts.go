package release

import (
	"bytes"
	"encoding/json"
	"strings"
)

// factHolds says whether a term, without its negation, holds for a fact at a path: keys of objects within one another,
// joined by dots. A list stands for each of its elements. An object is set, but equals nothing. Text that is not JSON has
// no facts.
func factHolds(text json.RawMessage, path string, t *selectorTerm) bool {
	return anyFact(text, path, func(value json.RawMessage) bool { return holdsFor(value, t) })
}

func holdsFor(value json.RawMessage, t *selectorTerm) bool {
	switch value[0] {
	case 'n':
		return false
	case '{':
		return t.op == opSet
	case '"':
		text, ok := unquote(value)
		return ok && t.holds(text)
	case '[':
		if t.op == opSet {
			return true
		}
		var elements []json.RawMessage
		if json.Unmarshal(value, &elements) != nil {
			return false
		}
		for _, element := range elements {
			if holdsFor(element, t) {
				return true
			}
		}
		return false
	}
	return t.holds(string(value)) // a number, true or false, as it was written
}

// anyFact says whether holds is true for a value at a path, of which there may be several: keys may have dots, and the way
// may lead through lists. It does not take the rest of the text apart, as it is done for each host of a fleet.
func anyFact(text []byte, path string, holds func(json.RawMessage) bool) bool {
	text = skipSpace(text)
	if len(text) == 0 || text[0] != '{' && text[0] != '[' {
		return false
	}
	isList := text[0] == '['
	for rest := skipSpace(text[1:]); len(rest) > 0; rest = skipSpace(rest[1:]) {
		below := path // of the value
		goesOn := true
		if !isList {
			end := valueEnd(rest)
			if rest[0] != '"' || end == 0 {
				return false
			}
			key, ok := unquote(rest[:end])
			rest = skipSpace(rest[end:])
			if !ok || len(rest) == 0 || rest[0] != ':' {
				return false
			}
			rest = skipSpace(rest[1:])
			below, goesOn = strings.CutPrefix(path, key)
		}
		end := valueEnd(rest)
		if end == 0 {
			return false
		}
		value := rest[:end]
		switch {
		case !goesOn:
		case isList:
			if anyFact(value, path, holds) {
				return true
			}
		case below == "":
			if holds(value) {
				return true
			}
		case below[0] == '.':
			if anyFact(value, below[1:], holds) {
				return true
			}
		}
		if rest = skipSpace(rest[end:]); len(rest) == 0 || rest[0] != ',' {
			return false
		}
	}
	return false
}

func skipSpace(text []byte) []byte { return bytes.TrimLeft(text, " \t\r\n") }

// valueEnd gives the length of the JSON value that text begins with; 0 if it ends too early.
func valueEnd(text []byte) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
			if i >= len(text) {
				return 0
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 { // behind a number or a word
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ':', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
		}
	}
	return 0
}

func unquote(quoted []byte) (string, bool) {
	if len(quoted) < 2 {
		return "", false
	}
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1]), true
	}
	var text string
	err := json.Unmarshal(quoted, &text)
	return text, err == nil
}

// ErrorAt gives an error of a field as one of another field, where the same input has another place.
func ErrorAt(field string, err error) error {
	if e, ok := err.(*Error); ok && e.Field != "" { //nolint:errorlint // one that is wrapped has a place of its own
		moved := *e
		moved.Field = field
		return &moved
	}
	return err
}
