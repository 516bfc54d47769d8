package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/quicflow/quicflow/internal/apiclient"
)

// object names a thing that is managed: in a file, and for the server.
type object struct {
	kind        string // one of kinds
	project     string // that it belongs to; its own name for a project
	environment string // that a variable belongs to; empty: the project's own
	name        string
}

func (o object) String() string {
	parts := []string{strings.ToLower(o.kind)}
	for _, part := range []string{o.project, o.environment, o.name} {
		if part != "" && (part != o.project || len(parts) == 1) {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "/")
}

// record is a thing as the server gives it.
type record map[string]any

func (r record) text(key string) string {
	text, _ := r[key].(string)
	return text
}

// match gives the If-Match of a record.
func (r record) match() *string { return new(fmt.Sprintf("%q", fmt.Sprint(r["revision"]))) }

// readRecord reads an answer without losing numbers.
func readRecord(res *http.Response, err error) (record, error) {
	text, err := apiclient.Read[json.RawMessage](res, err)
	if err != nil {
		return nil, err
	}
	return decodeRecord(text)
}

func decodeRecord(text []byte) (record, error) {
	r := record{}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	return r, decoder.Decode(&r)
}

// kind is how a kind of object is managed. A body is that of the request; a dry run keeps nothing.
type kind struct {
	name  string // in files
	named string // key of its own name in files
	read  func(ctx context.Context, api *apiclient.API, o object) (record, error)
	// create is nil where replace does it.
	create  func(ctx context.Context, api *apiclient.API, o object, dry bool, body io.Reader) (record, error)
	replace func(ctx context.Context, api *apiclient.API, o object, now record, dry bool, body io.Reader) (record, error)
	remove  func(ctx context.Context, api *apiclient.API, o object, now record) error
}

const contentJSON = "application/json"

const (
	kindProject     = "Project"
	kindEnvironment = "Environment"
	kindVariable    = "Variable"
	kindVersion     = "Version"
)

// kinds are in the order in which they need each other.
var kinds = []kind{
	{
		name: kindProject, named: "name",
		read: func(ctx context.Context, api *apiclient.API, o object) (record, error) {
			return readRecord(api.GetProject(ctx, o.name))
		},
		create: func(ctx context.Context, api *apiclient.API, _ object, dry bool, body io.Reader) (record, error) {
			return readRecord(api.CreateProjectWithBody(ctx, &apiclient.CreateProjectParams{DryRun: apiclient.Optional(dry)}, contentJSON, body))
		},
		replace: func(ctx context.Context, api *apiclient.API, o object, now record, dry bool, body io.Reader) (record, error) {
			return readRecord(api.UpdateProjectWithBody(ctx, o.name, &apiclient.UpdateProjectParams{DryRun: apiclient.Optional(dry), IfMatch: now.match()}, contentJSON, body))
		},
		remove: func(ctx context.Context, api *apiclient.API, o object, now record) error {
			return apiclient.Done(api.DeleteProject(ctx, o.name, &apiclient.DeleteProjectParams{IfMatch: now.match()}))
		},
	}, {
		name: kindEnvironment, named: "name",
		read: func(ctx context.Context, api *apiclient.API, o object) (record, error) {
			return readRecord(api.GetEnvironment(ctx, o.project, o.name))
		},
		create: func(ctx context.Context, api *apiclient.API, o object, dry bool, body io.Reader) (record, error) {
			return readRecord(api.CreateEnvironmentWithBody(ctx, o.project, &apiclient.CreateEnvironmentParams{DryRun: apiclient.Optional(dry)}, contentJSON, body))
		},
		replace: func(ctx context.Context, api *apiclient.API, o object, now record, dry bool, body io.Reader) (record, error) {
			return readRecord(api.UpdateEnvironmentWithBody(ctx, o.project, o.name,
				&apiclient.UpdateEnvironmentParams{DryRun: apiclient.Optional(dry), IfMatch: now.match()}, contentJSON, body))
		},
		remove: func(ctx context.Context, api *apiclient.API, o object, now record) error {
			return apiclient.Done(api.DeleteEnvironment(ctx, o.project, o.name, &apiclient.DeleteEnvironmentParams{IfMatch: now.match()}))
		},
	}, {
		name: kindVariable, named: "name",
		read: func(ctx context.Context, api *apiclient.API, o object) (record, error) {
			return readRecord(api.GetVariable(ctx, o.project, o.name, &apiclient.GetVariableParams{Environment: apiclient.Optional(o.environment)}))
		},
		replace: func(ctx context.Context, api *apiclient.API, o object, now record, dry bool, body io.Reader) (record, error) {
			params := &apiclient.PutVariableParams{Environment: apiclient.Optional(o.environment), DryRun: apiclient.Optional(dry)}
			if now != nil {
				params.IfMatch = now.match()
			}
			return readRecord(api.PutVariableWithBody(ctx, o.project, o.name, params, contentJSON, body))
		},
		remove: func(ctx context.Context, api *apiclient.API, o object, now record) error {
			return apiclient.Done(api.DeleteVariable(ctx, o.project, o.name,
				&apiclient.DeleteVariableParams{Environment: apiclient.Optional(o.environment), IfMatch: now.match()}))
		},
	}, {
		name: kindVersion, named: "version",
		read: readVersion,
		create: func(ctx context.Context, api *apiclient.API, o object, dry bool, body io.Reader) (record, error) {
			return readRecord(api.CreateVersionWithBody(ctx, o.project, &apiclient.CreateVersionParams{DryRun: apiclient.Optional(dry)}, contentJSON, body))
		},
		replace: func(ctx context.Context, api *apiclient.API, _ object, now record, dry bool, body io.Reader) (record, error) {
			return readRecord(api.UpdateVersionWithBody(ctx, now.text("id"), &apiclient.UpdateVersionParams{DryRun: apiclient.Optional(dry), IfMatch: now.match()}, contentJSON, body))
		},
		remove: func(ctx context.Context, api *apiclient.API, _ object, now record) error {
			return apiclient.Done(api.DeleteVersion(ctx, now.text("id"), &apiclient.DeleteVersionParams{IfMatch: now.match()}))
		},
	},
}

func kindOf(name string) *kind {
	for i := range kinds {
		if kinds[i].name == name {
			return &kinds[i]
		}
	}
	return nil
}

// readVersion finds a version by project and name, or by its id.
func readVersion(ctx context.Context, api *apiclient.API, o object) (record, error) {
	page, err := apiclient.Read[struct {
		Versions []json.RawMessage `json:"versions"`
	}](api.ListVersions(ctx, o.project, &apiclient.ListVersionsParams{Name: apiclient.Optional(o.name)}))
	if err != nil {
		return nil, err
	}
	if len(page.Versions) == 1 {
		return decodeRecord(page.Versions[0])
	}
	r, err := readRecord(api.GetVersion(ctx, o.name))
	if err == nil && (r.text("project") == o.project || r.text("project_id") == o.project) {
		return r, nil
	}
	if err != nil && apiclient.StatusOf(err) != http.StatusNotFound {
		return nil, err
	}
	missing := &apiclient.Problem{}
	missing.Status, missing.Detail = http.StatusNotFound, fmt.Sprintf("project %s has no version %s", o.project, o.name)
	return nil, missing
}

// theServers are the keys that the server gives and a file does not have.
var theServers = []string{"id", "project_id", "revision", "created_at", "updated_at"}

// file gives the record as a file has it.
func (r record) file(of *kind) record {
	out := record{}
	for key, value := range r {
		if !slices.Contains(theServers, key) {
			out[key] = value
		}
	}
	if strategy, ok := out["strategy"].(map[string]any); ok {
		if strategy["max_failures"] == "0" {
			delete(strategy, "max_failures")
		}
		if len(strategy) == 0 {
			delete(out, "strategy")
		}
	}
	if secret, ok := out["secret"].(bool); ok && !secret {
		delete(out, "secret")
		if out["value"] == nil {
			out["value"] = "" // which the server leaves out
		}
	}
	out["kind"] = of.name
	return out
}

// firstKeys stand before the others, in this order.
var firstKeys = []string{"kind", "project", "environment", "name", "version", "status", "type", "description"}

// writeDocument writes a record as a YAML document, with the keys that matter most first.
func writeDocument(w io.Writer, r record) error {
	place := func(key string) int {
		if i := slices.Index(firstKeys, key); i >= 0 {
			return i
		}
		return len(firstKeys)
	}
	names := make([]string, 0, len(r))
	for key := range r {
		names = append(names, key)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(a, b)) })
	top := &yaml.Node{Kind: yaml.MappingNode}
	for _, key := range names {
		var name, value yaml.Node
		name.SetString(key)
		if err := value.Encode(plain(r[key])); err != nil {
			return err
		}
		top.Content = append(top.Content, &name, &value)
	}
	return encodeYAML(w, top)
}

func encodeYAML(w io.Writer, v any) error {
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	return errors.Join(e.Encode(v), e.Close())
}

// plain turns the numbers of JSON into those of YAML.
func plain(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, value := range v {
			out[key] = plain(value)
		}
		return out
	case record:
		return plain(map[string]any(v))
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = plain(v[i])
		}
		return out
	}
	return v
}
