package config

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Write writes a configuration as YAML, with a comment above every key.
func Write(w io.Writer, c Config) error {
	var b bytes.Buffer
	b.WriteString("# Configuration of quic-server. Every key may be left out; then it has the value of the preset.\n" +
		"# Times are in seconds, or text such as 90s or 5m. Each key can be set by an environment variable instead:\n" +
		"# server.addr by QUIC_SERVER_ADDR, and so on.\n")
	for _, f := range c.fields() {
		indent := strings.Repeat("  ", f.depth())
		b.WriteByte('\n')
		for _, line := range wrap(f.doc, 110-len(indent)) {
			fmt.Fprintf(&b, "%s# %s\n", indent, line)
		}
		if f.section() {
			fmt.Fprintf(&b, "%s%s:\n", indent, f.name())
			continue
		}
		fmt.Fprintf(&b, "%s%s: %s\n", indent, f.name(), f.text())
	}
	_, err := w.Write(bytes.ReplaceAll(b.Bytes(), []byte(":\n\n"), []byte(":\n")))
	return err
}

// text gives the value as YAML.
func (f field) text() string {
	switch p := f.target().(type) {
	case *string:
		return strconv.Quote(*p) // YAML reads what Go writes, for printable text
	case *Duration:
		if p.Std()%1e9 != 0 {
			return strconv.Quote(p.String())
		}
		return p.String()
	default:
		return fmt.Sprint(f.value.Interface())
	}
}

// wrap breaks text into lines at spaces.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
