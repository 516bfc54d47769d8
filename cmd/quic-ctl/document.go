package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/quicflow/quicflow/internal/apiclient"
)

// document is a YAML (or JSON) file on its way to the server. The server knows which keys there are and what they hold;
// the document knows the line of each, so that the server's complaints can be shown where they belong.
type document struct {
	file   string
	values map[string]any
	nodes  map[string]*yaml.Node // by path, as in "strategy.waves[1]"
}

func newDocument() *document {
	return &document{values: map[string]any{}, nodes: map[string]*yaml.Node{}}
}

// Limits of files.
const (
	maxFile     = 64 << 20
	maxDocument = 16 << 20 // what the server takes for a task, which may list many hosts
	maxObject   = 1 << 20  // what it takes for anything else
)

// readDocument reads a file, or the standard input for "-", with one document.
func (c *cli) readDocument(file string) (*document, error) {
	docs, err := c.readDocuments(file)
	if err != nil {
		return nil, err
	}
	if len(docs) > 1 {
		return nil, fmt.Errorf("%s holds more than one document", docs[0].file)
	}
	return docs[0], nil
}

// readDocuments reads a file, or the standard input for "-". There is at least one document in it.
func (c *cli) readDocuments(file string) ([]*document, error) {
	text, file, err := c.readFile(file)
	if err != nil {
		return nil, err
	}
	var docs []*document
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var root yaml.Node
		err := decoder.Decode(&root)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		top := root.Content[0]
		if top.Kind != yaml.MappingNode {
			return nil, fmt.Errorf("%s:%d: want keys with values, such as name: hello", file, max(top.Line, 1))
		}
		d := newDocument()
		d.file = file
		if err := root.Decode(&d.values); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if err := d.index("", top); err != nil {
			return nil, err
		}
		docs = append(docs, d)
	}
	if len(docs) == 0 {
		return nil, fmt.Errorf("%s is empty", file)
	}
	return docs, nil
}

func (c *cli) readFile(file string) (text []byte, name string, err error) {
	from := c.in
	if file == "-" {
		file = "standard input"
	} else {
		f, err := os.Open(file)
		if err != nil {
			return nil, file, err
		}
		defer f.Close()
		from = f
	}
	text, err = io.ReadAll(io.LimitReader(from, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s is larger than %d MiB", file, maxFile>>20)
	}
	return text, file, err
}

// place says where a key is, or the document itself.
func (d *document) place(path string) string {
	if node := d.nodes[path]; node != nil && d.file != "" {
		return fmt.Sprintf("%s:%d", d.file, node.Line)
	}
	return d.file
}

// index notes the nodes by their paths. It finds what YAML has and JSON has not: keys that are no text, and infinities.
func (d *document) index(path string, node *yaml.Node) error {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	d.nodes[path] = node
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			name := node.Content[i]
			key := name.Value
			if path != "" {
				key = path + "." + key
			}
			if tag := name.ShortTag(); tag != "!!str" && tag != "!!merge" {
				return fmt.Errorf("%s:%d: %s: a key must be text; put it in quotes: %q", d.file, name.Line, key, name.Value)
			}
			if err := d.index(key, node.Content[i+1]); err != nil {
				return err
			}
		}
	case yaml.SequenceNode:
		for i, item := range node.Content {
			if err := d.index(fmt.Sprintf("%s[%d]", path, i), item); err != nil {
				return err
			}
		}
	case yaml.ScalarNode:
		var number float64
		if node.ShortTag() == "!!float" && (node.Decode(&number) != nil || math.IsInf(number, 0) || math.IsNaN(number)) {
			return fmt.Errorf("%s:%d: %s: %s is not a number that can be sent", d.file, node.Line, path, node.Value)
		}
	}
	return nil
}

// set puts a value of the command line at a path, over what the file says.
func (d *document) set(path string, value any) {
	keys := strings.Split(path, ".")
	values := d.values
	for _, key := range keys[:len(keys)-1] {
		inner, ok := values[key].(map[string]any)
		if !ok {
			inner = map[string]any{}
			values[key] = inner
		}
		values = inner
	}
	values[keys[len(keys)-1]] = value
	delete(d.nodes, path)
}

// merge puts the values of another document below a path.
func (d *document) merge(path string, other map[string]any) {
	for key, value := range other {
		if inner, ok := value.(map[string]any); ok {
			d.merge(path+"."+key, inner)
		} else {
			d.set(path+"."+key, value)
		}
	}
}

// take removes a text that belongs into the request's path.
func (d *document) take(key string) string {
	text, _ := d.values[key].(string)
	delete(d.values, key)
	return text
}

// most gives how large the document may be.
func (d *document) most() int {
	if _, task := d.values["targets"]; task {
		return maxDocument
	}
	return maxObject
}

// body gives the request's body.
func (d *document) body() (io.Reader, error) {
	text, err := json.Marshal(d.values)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.file, err)
	}
	if most := d.most(); len(text) > most {
		return nil, fmt.Errorf("%s takes %.1f MiB; the limit is %d MiB", d.place(""), float64(len(text))/(1<<20), most>>20)
	}
	return bytes.NewReader(text), nil
}

// locate puts the lines of the file into what the server found wrong with it.
func (d *document) locate(err error) error {
	var problem *apiclient.Problem
	if d.file == "" || !errors.As(err, &problem) || len(problem.Errors) == 0 {
		return err
	}
	var lines []string
	for _, e := range problem.Errors {
		field := fieldOf(e.Location)
		message := field + ": " + e.Message
		place := d.file
		if node := d.nodes[field]; node != nil {
			place = fmt.Sprintf("%s:%d", d.file, node.Line)
			if e.Message == "expected string" && node.Kind == yaml.ScalarNode {
				message += fmt.Sprintf("; put it in quotes: %q", node.Value)
			}
		}
		lines = append(lines, place+": "+message)
	}
	return errors.New(strings.Join(lines, "\n"))
}

// fieldOf gives a field as the user knows it from where the server found it in the request.
func fieldOf(location string) string {
	for _, part := range []string{"body.", "query.", "path."} {
		if field, ok := strings.CutPrefix(location, part); ok {
			return field
		}
	}
	return location
}
