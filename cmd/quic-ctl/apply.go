package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quicflow/quicflow/internal/apiclient"
)

const applyExample = `  quic-ctl apply -f shop.yaml
  quic-ctl apply -f config/ --dry-run
  quic-ctl export shop | quic-ctl --server https://other.example apply -f -

  # shop.yaml
  kind: Project
  name: shop
  type: container
  container:
    image: registry.example.com/team/shop
    registry: {username: ci, password: "${REGISTRY_TOKEN}"}
    ports: [{container: 80, host: 8080}]
  ---
  kind: Environment
  project: shop
  name: prod
  selector: env=prod
  ---
  kind: Variable
  project: shop
  environment: prod      # left out: the project's own
  name: DB_HOST
  value: db.example.com
  ---
  kind: Variable
  project: shop
  name: REGISTRY_TOKEN
  secret: true           # without a value it keeps the one that it has
  ---
  kind: Version
  project: shop
  version: "2.0"
  status: active
  container: {image_tag: "2.0"}`

// planned is a document of a file that is to be applied.
type planned struct {
	object
	kind *kind
	doc  *document
}

func (c *cli) apply() *cobra.Command {
	var files []string
	var dry bool
	cmd := &cobra.Command{
		Use: "apply -f FILE", Short: "Make projects, environments, variables and versions what files say", Example: applyExample, Args: cobra.NoArgs,
		Long: "Make projects, environments, variables and versions what files say.\n\n" +
			"What is not there yet is created; what differs is replaced as a whole, so that what a file leaves out is removed; what nobody mentions stays.\n" +
			"Applied again, the same files change nothing.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return usagef("name a file or directory with -f")
			}
			plan, err := c.readPlan(files)
			if err != nil {
				return err
			}
			api, err := c.api()
			if err != nil {
				return err
			}
			return c.carryOut(cmd.Context(), api, plan, dry)
		},
	}
	cmd.Flags().StringArrayVarP(&files, "file", "f", nil, "YAML file with one or more documents, directory of such files, or - for the standard input; may be repeated")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "have the server check everything and say what it would do, but keep nothing")
	return cmd
}

// readPlan reads all files before anything is done. Things come in the order in which they need each other.
func (c *cli) readPlan(files []string) ([]planned, error) {
	var plan []planned
	seen := map[object]string{}
	for _, name := range files {
		names, err := filesOf(name)
		if err != nil {
			return nil, err
		}
		for _, file := range names {
			docs, err := c.readDocuments(file)
			if err != nil {
				return nil, err
			}
			for _, doc := range docs {
				p, err := identify(doc)
				if err != nil {
					return nil, err
				}
				if other, ok := seen[p.object]; ok {
					return nil, fmt.Errorf("%s: %s is in %s, too", doc.place(""), p.object, other)
				}
				seen[p.object] = doc.place("")
				plan = append(plan, p)
			}
		}
	}
	rank := func(p planned) int {
		return slices.IndexFunc(kinds, func(k kind) bool { return k.name == p.kind.name })
	}
	slices.SortStableFunc(plan, func(a, b planned) int { return cmp.Compare(rank(a), rank(b)) })
	return plan, nil
}

// filesOf gives a file, or the YAML files of a directory.
func filesOf(name string) ([]string, error) {
	if name == "-" {
		return []string{name}, nil
	}
	info, err := os.Stat(name)
	if err != nil || !info.IsDir() {
		return []string{name}, err
	}
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type()&fs.ModeDir == 0 && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) {
			names = append(names, filepath.Join(name, e.Name()))
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s holds no file that ends in .yaml, .yml or .json", name)
	}
	return names, nil
}

// identify says what a document is about, and leaves in it what goes to the server.
func identify(doc *document) (planned, error) {
	names := make([]string, len(kinds))
	for i := range kinds {
		names[i] = kinds[i].name
	}
	kindName, _ := doc.values["kind"].(string)
	k := kindOf(kindName)
	if k == nil {
		return planned{}, fmt.Errorf("%s: kind: %q is none of %s", doc.place("kind"), kindName, strings.Join(names, ", "))
	}
	p := planned{object: object{kind: k.name}, kind: k, doc: doc}
	text := func(key string, into *string) error {
		value, ok := doc.values[key]
		if !ok {
			return fmt.Errorf("%s: %s: is required for a %s", doc.place(""), key, k.name)
		}
		*into, ok = value.(string)
		if !ok {
			return fmt.Errorf("%s: %s: expected string; put it in quotes: %q", doc.place(key), key, fmt.Sprint(value))
		}
		if *into == "" || strings.Contains(*into, "/") {
			return fmt.Errorf("%s: %s: %q is no name", doc.place(key), key, *into)
		}
		return nil
	}
	if err := text(k.named, &p.name); err != nil {
		return p, err
	}
	if k.name == kindProject {
		p.project = p.name
	} else if err := text("project", &p.project); err != nil {
		return p, err
	}
	if _, given := doc.values["environment"]; given && k.name == kindVariable {
		if err := text("environment", &p.environment); err != nil {
			return p, err
		}
		delete(doc.values, "environment")
	}
	delete(doc.values, "kind")
	if k.name != kindProject {
		delete(doc.values, "project")
	}
	if k.create == nil {
		delete(doc.values, k.named)
	}
	return p, nil
}

// What became of an object.
const (
	wasCreated    = "created"
	wasConfigured = "configured"
	wasUnchanged  = "unchanged"
)

// applied is what is told of an object.
type applied struct {
	Kind        string `json:"kind"`
	Project     string `json:"project"`
	Environment string `json:"environment,omitempty"`
	Name        string `json:"name"`
	Result      string `json:"result"`
	DryRun      bool   `json:"dry_run,omitempty"`
	Error       string `json:"error,omitempty"`
}

// carryOut applies a plan. What goes wrong with one thing does not hold up the others, but those below it.
func (c *cli) carryOut(ctx context.Context, api *apiclient.API, plan []planned, dry bool) error {
	pretended, failed := map[string]bool{}, map[string]bool{}
	var told []applied
	var errs []error
	for _, p := range plan {
		of := object{kind: kindProject, project: p.project, name: p.project}.String()
		env := object{kind: kindEnvironment, project: p.project, name: p.environment}.String()
		result := ""
		var err error
		switch {
		case p.kind.name != kindProject && failed[of] || p.environment != "" && failed[env]:
			err = errors.New("left out, as what it belongs to could not be applied")
		case dry && p.kind.name != kindProject && (pretended[of] || p.environment != "" && pretended[env]):
			result = wasCreated // the server cannot check it, as it knows nothing of what it belongs to
		default:
			result, err = p.apply(ctx, api, dry)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if dry && result == wasCreated {
			pretended[p.String()] = true
		}
		line := applied{Kind: p.kind.name, Project: p.project, Environment: p.environment, Name: p.name, Result: result, DryRun: dry}
		if err != nil {
			failed[p.String()] = true
			line.Result, line.Error = "failed", err.Error()
			errs = append(errs, fmt.Errorf("%s: %w", p.object, err))
		}
		told = append(told, line)
		if !c.json() && err == nil {
			words := p.String() + " " + result
			if dry {
				words += " (dry run)"
			}
			fmt.Fprintln(c.out, printable(words))
		}
	}
	if c.json() {
		if err := c.writeJSON(told); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

// apply makes one thing what its document says.
func (p *planned) apply(ctx context.Context, api *apiclient.API, dry bool) (result string, err error) {
	now, err := p.kind.read(ctx, api, p.object)
	if err != nil && apiclient.StatusOf(err) != http.StatusNotFound {
		return "", err
	}
	body, err := p.doc.body()
	if err != nil {
		return "", err
	}
	var next record
	if now == nil && p.kind.create != nil {
		next, err = p.kind.create(ctx, api, p.object, dry, body)
	} else {
		next, err = p.kind.replace(ctx, api, p.object, now, dry, body)
	}
	if err != nil {
		return "", p.doc.locate(err)
	}
	return became(now, next), nil
}

// became says what a request made of an object; now is nil if there was none.
func became(now, next record) string {
	switch {
	case now == nil:
		return wasCreated
	case fmt.Sprint(now["revision"]) == fmt.Sprint(next["revision"]):
		return wasUnchanged
	}
	return wasConfigured
}

func (c *cli) export() *cobra.Command {
	cmd := &cobra.Command{
		Use: "export PROJECT...", Short: "Write projects as files that apply takes", Args: cobra.MinimumNArgs(1),
		Long: "Write projects, with their environments, variables and versions, as YAML that apply takes.\n\nValues of secret variables are not in it: where a secret is " +
			"there already, apply keeps its value.",
		Example: "  quic-ctl export shop > shop.yaml", ValidArgsFunction: c.completeProjects,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			var all []record
			for _, name := range args {
				some, err := exported(cmd.Context(), api, name)
				if err != nil {
					return err
				}
				all = append(all, some...)
			}
			if c.options.output == "json" {
				return c.writeJSON(all)
			}
			for i, r := range all {
				if i > 0 {
					fmt.Fprintln(c.out, "---")
				}
				if err := c.writeYAML(func(w *strings.Builder) error { return writeDocument(w, r) }); err != nil {
					return err
				}
			}
			return nil
		},
	}
	return cmd
}

// exported gives all of a project.
func exported(ctx context.Context, api *apiclient.API, ref string) ([]record, error) {
	project, err := readRecord(api.GetProject(ctx, ref))
	if err != nil {
		return nil, err
	}
	name := project.text("name")
	all := []record{project.file(kindOf(kindProject))}
	environments, err := listOf(ctx, "environments", func(ctx context.Context, limit, offset int64) (*http.Response, error) {
		return api.ListEnvironments(ctx, name, &apiclient.ListEnvironmentsParams{Limit: &limit, Offset: &offset})
	})
	if err != nil {
		return nil, err
	}
	scopes := []string{""}
	for _, e := range environments {
		scopes = append(scopes, e.text("name"))
		all = append(all, e.file(kindOf(kindEnvironment)))
	}
	for _, scope := range scopes {
		page, err := readRecord(api.ListVariables(ctx, name, &apiclient.ListVariablesParams{Environment: apiclient.Optional(scope)}))
		if err != nil {
			return nil, err
		}
		for _, v := range records(page["variables"]) {
			all = append(all, v.file(kindOf(kindVariable)))
		}
	}
	versions, err := listOf(ctx, "versions", func(ctx context.Context, limit, offset int64) (*http.Response, error) {
		return api.ListVersions(ctx, name, &apiclient.ListVersionsParams{Limit: &limit, Offset: &offset})
	})
	slices.Reverse(versions) // so that they are made again in their order
	for _, v := range versions {
		all = append(all, v.file(kindOf(kindVersion)))
	}
	return all, err
}

// listOf reads all pages of a list.
func listOf(ctx context.Context, key string, read func(ctx context.Context, limit, offset int64) (*http.Response, error)) ([]record, error) {
	return pages(ctx, 0, func(ctx context.Context, limit, offset int64) ([]record, error) {
		page, err := readRecord(read(ctx, limit, offset))
		return records(page[key]), err
	})
}

func records(v any) []record {
	list, _ := v.([]any)
	out := make([]record, 0, len(list))
	for _, item := range list {
		if m, ok := item.(map[string]any); ok {
			out = append(out, maps.Clone(m))
		}
	}
	return out
}
