package main

import (
	"encoding/base64"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/quicflow/quicflow/internal/apiclient"
)

// rawPrinter writes the output of one host as it is. On a terminal, what would steer it is replaced.
type rawPrinter struct {
	w    io.Writer
	part []byte // of a character whose end has not come
}

func (p *rawPrinter) print(line apiclient.LogLine) {
	data := []byte(line.Text)
	if line.DataBase64 != "" {
		data, _ = base64.StdEncoding.DecodeString(line.DataBase64)
	}
	if !isTerminal(p.w) {
		_, _ = p.w.Write(data)
		return
	}
	data = append(p.part, data...)
	end := len(data)
	for i := 1; i < utf8.UTFMax && i <= len(data); i++ { // the last character, if it may go on
		if tail := data[len(data)-i:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				end -= i
			}
			break
		}
	}
	p.part = append([]byte(nil), data[end:]...)
	_, _ = io.WriteString(p.w, safeLines(string(data[:end])))
}

func (p *rawPrinter) flush() {
	if len(p.part) > 0 {
		_, _ = io.WriteString(p.w, safeLines(string(p.part)))
	}
	p.part = nil
}

// safeLines is printable for text of several lines.
func safeLines(text string) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "�"), "\r\n", "\n")
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return strings.Join(lines, "\n")
}

// shown is text of a host as a writer may have it.
func (c *cli) shown(w io.Writer, text string) string {
	if isTerminal(w) {
		return safeLines(text)
	}
	return text
}
