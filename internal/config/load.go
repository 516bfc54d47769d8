package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

const envPrefix = "QUIC_"

// notOurs are variables that begin like ours: the agent's, and quic-go's.
var notOurs = []string{"QUIC_JOIN_TOKEN", "QUIC_CLIENT_", "QUIC_AGENT_", "QUIC_CTL_", "QUIC_LOADTEST_", "QUIC_GO_"}

// kubernetesLink is what Kubernetes adds to the environment for a service called quic-….
var kubernetesLink = regexp.MustCompile(`^QUIC_[A-Z0-9_]+_(SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT(_[0-9]+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)$`)

// Load reads the file (if any: "" means none), then the environment (as os.Environ gives it), over the defaults of the
// preset that they choose, and validates. It reports everything that is wrong, not only the first.
func Load(file string, environ []string) (Config, error) {
	var root *yaml.Node
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return Config{}, fmt.Errorf("read the configuration: %w", err)
		}
		if root, err = parse(data); err != nil {
			return Config{}, fmt.Errorf("%s: %w", file, err)
		}
	}
	// The first pass learns which preset is asked for, the second puts everything else over it.
	c := Standard()
	_ = apply(&c, file, root, environ)
	c = preset(c.Server.HighPerf)
	if err := apply(&c, file, root, environ); err != nil {
		return Config{}, err
	}
	if err := c.Validate(); err != nil {
		return Config{}, err
	}
	return c, nil
}

func apply(c *Config, file string, root *yaml.Node, environ []string) error {
	fields := c.fields()
	var errs []error
	for _, err := range applyNode(fields, "", root) {
		errs = append(errs, fmt.Errorf("%s:%w", file, err))
	}
	errs = append(errs, applyEnv(fields, environ)...)
	return errors.Join(errs...)
}

// parse reads one YAML document; an empty one gives nil.
func parse(data []byte) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := decoder.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("has more than one YAML document")
	}
	return doc.Content[0], nil
}

// applyNode sets the keys of one mapping; its errors begin with the line.
func applyNode(fields []field, prefix string, n *yaml.Node) (errs []error) {
	if n == nil || n.ShortTag() == "!!null" {
		return nil // an empty file, or a section with nothing but comments
	}
	fail := func(at *yaml.Node, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%d: "+format, append([]any{at.Line}, args...)...))
	}
	if n.Kind != yaml.MappingNode {
		fail(n, "%s: wants keys, not %s", cmp.Or(strings.TrimSuffix(prefix, "."), "the file"), kindOf(n))
		return errs
	}
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		path := prefix + key.Value
		at := slices.IndexFunc(fields, func(f field) bool { return f.path == path })
		switch {
		case at < 0:
			fail(key, "%s: unknown key%s", path, suggestion(fields, path))
		case seen[path]:
			fail(key, "%s: given twice", path)
		case value.Kind == yaml.AliasNode:
			fail(value, "%s: YAML aliases are not supported", path)
		case fields[at].section():
			errs = append(errs, applyNode(fields, path+".", value)...)
		default:
			if err := fields[at].fromNode(value); err != nil {
				fail(value, "%s: %w", path, err)
			}
		}
		seen[path] = true
	}
	return errs
}

// applyEnv sets keys from variables. An empty variable counts as not given.
func applyEnv(fields []field, environ []string) (errs []error) {
	names := map[string]field{}
	for _, f := range fields {
		if !f.section() {
			names[f.env()] = f
		}
	}
	inKubernetes := slices.ContainsFunc(environ, func(e string) bool { return strings.HasPrefix(e, "KUBERNETES_SERVICE_HOST=") })
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		f, known := names[name]
		switch {
		case !strings.HasPrefix(name, envPrefix) || value == "":
		case known:
			if err := f.fromText(value); err != nil {
				errs = append(errs, fmt.Errorf("%s (%s): %w", name, f, err))
			}
		case slices.ContainsFunc(notOurs, func(p string) bool { return strings.HasPrefix(name, p) }):
		case inKubernetes && kubernetesLink.MatchString(name):
		default:
			errs = append(errs, fmt.Errorf("%s: unknown environment variable%s", name, nearest(slices.Sorted(maps.Keys(names)), name)))
		}
	}
	return errs
}

func suggestion(fields []field, path string) string {
	paths := make([]string, len(fields))
	for i, f := range fields {
		paths[i] = f.path
	}
	return nearest(paths, path)
}

// nearest proposes a known name that is a typing error away, or has the same last part.
func nearest(names []string, wrong string) string {
	best, least := "", 4
	for _, name := range names {
		if d := distance(name, wrong); d < least {
			best, least = name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", best)
}

// distance is the Levenshtein distance.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// Find looks for config/server.yaml: in the working directory, beside the program's bin directory, then in
// /etc/quicflow. It gives "" if there is none.
func Find() string {
	candidates := []string{filepath.Join("config", "server.yaml")}
	if exe, err := os.Executable(); err == nil {
		candidates = append(candidates, filepath.Join(filepath.Dir(filepath.Dir(exe)), "config", "server.yaml"))
	}
	for _, file := range append(candidates, "/etc/quicflow/server.yaml") {
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			return file
		}
	}
	return ""
}
