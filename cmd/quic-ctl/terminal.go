package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"golang.org/x/term"
)

// terminal is where a command reads and writes: results on out, everything about how it goes on err.
type terminal struct {
	in       io.Reader
	out, err io.Writer
	plain    bool // no colours, whatever out and err are
	yaml     bool // writeJSON writes YAML
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// width gives the columns of a terminal, or a common number of them.
func width(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if columns, _, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 {
			return columns
		}
	}
	return 80
}

// The colours of terminals, by their meaning.
const (
	good    = "32"
	bad     = "31"
	caution = "33"
	faint   = "2"
)

// paint colours text for a writer that shows colours.
func (t terminal) paint(w io.Writer, color, text string) string {
	if t.plain || color == "" || !isTerminal(w) {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// table writes aligned columns, the first row being the head.
func (t terminal) table(head []string, rows [][]string) {
	w := tabwriter.NewWriter(t.out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(w, strings.Join(head, "\t"))
	for _, row := range rows {
		for i := range row {
			row[i] = printable(row[i])
			if row[i] == "" {
				row[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	_ = w.Flush()
}

// list shows items as JSON, or as a table with a row each.
func list[T any](c *cli, items []T, head []string, row func(T) []string) error {
	if c.json() {
		if items == nil {
			items = []T{}
		}
		return c.writeJSON(items)
	}
	rows := make([][]string, 0, len(items))
	for _, item := range items {
		rows = append(rows, row(item))
	}
	c.table(head, rows)
	return nil
}

// writeJSON writes a value for programs: as JSON or, with -o yaml, as YAML.
func (t terminal) writeJSON(v any) error {
	if !t.yaml {
		return t.encodeJSON(v, "  ")
	}
	text, err := json.Marshal(v) // for the names that JSON has
	if err != nil {
		return err
	}
	var value any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		return err
	}
	return t.writeYAML(func(w *strings.Builder) error { return encodeYAML(w, plain(value)) })
}

// writeYAML writes what a function gives. YAML cannot escape everywhere what would steer a terminal, so that is replaced on one.
func (t terminal) writeYAML(write func(w *strings.Builder) error) error {
	var text strings.Builder
	if err := write(&text); err != nil {
		return err
	}
	_, err := io.WriteString(t.out, shownText(t.out, text.String()))
	return err
}

func shownText(w io.Writer, text string) string {
	if isTerminal(w) {
		return safeLines(text)
	}
	return text
}

// encodeJSON writes a value and a line break. What would steer a terminal is escaped, as JSON allows; encoding/json itself
// does so up to U+001F only.
func (t terminal) encodeJSON(v any, indent string) error {
	var text strings.Builder
	e := json.NewEncoder(&text)
	e.SetIndent("", indent)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	var escaped strings.Builder
	for _, r := range text.String() {
		if r != '\n' && steers(r) {
			fmt.Fprintf(&escaped, "\\u%04x", r)
			continue
		}
		escaped.WriteRune(r)
	}
	_, err := io.WriteString(t.out, escaped.String())
	return err
}

// printable replaces what would steer a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && steers(r) {
			return '�'
		}
		return r
	}, text)
}

// steers says whether a terminal would obey a character instead of showing it: controls, and those that turn the direction
// of the text around them, so that it reads as something else.
func steers(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }

// ago says how long something is past.
func ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return round(time.Since(t)) + " ago"
}

// round writes a duration as a person would say it.
func round(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < time.Hour:
		return strings.TrimSuffix(d.Round(time.Second).String(), "0s")
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
