package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/quicflow/quicflow/internal/apiclient"
)

// named gives the object that a command's arguments name: PROJECT, or PROJECT and the name of what belongs to it.
func named(kind string, args []string, environment string) object {
	return object{kind: kind, project: args[0], name: args[len(args)-1], environment: environment}
}

// found is an object with what the server has of it.
func (c *cli) found(ctx context.Context, o object) (record, *apiclient.API, error) {
	api, err := c.api()
	if err != nil {
		return nil, nil, err
	}
	now, err := kindOf(o.kind).read(ctx, api, o)
	return now, api, err
}

// getCommand shows an object: as JSON or, with -o yaml, as a file that apply takes.
func (c *cli) getCommand(kind, use string, complete completion) *cobra.Command {
	var environment string
	cmd := &cobra.Command{
		Use: "get " + use, Short: "Show a " + strings.ToLower(kind), Args: cobra.ExactArgs(len(strings.Fields(use))), ValidArgsFunction: complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			now, _, err := c.found(cmd.Context(), named(kind, args, environment))
			if err != nil {
				return err
			}
			if c.options.output == "yaml" {
				return c.writeYAML(func(w *strings.Builder) error { return writeDocument(w, now.file(kindOf(kind))) })
			}
			return c.writeJSON(now)
		},
	}
	c.ofEnvironment(cmd, kind, &environment)
	return cmd
}

// ofEnvironment adds the flag for variables of an environment.
func (c *cli) ofEnvironment(cmd *cobra.Command, kind string, environment *string) {
	if kind == kindVariable {
		cmd.Flags().StringVar(environment, "environment", "", "an environment whose variable is meant (default: the project's own)")
	}
}

func (c *cli) deleteCommand(kind, use string, complete completion) *cobra.Command {
	var environment string
	cmd := &cobra.Command{
		Use: "delete " + use, Short: "Delete a " + strings.ToLower(kind) + ", unless it is in use", Args: cobra.ExactArgs(len(strings.Fields(use))), ValidArgsFunction: complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			o := named(kind, args, environment)
			now, api, err := c.found(cmd.Context(), o)
			if err != nil {
				return err
			}
			if err := kindOf(kind).remove(cmd.Context(), api, o, now); err != nil {
				return err
			}
			if c.json() {
				return c.writeJSON(applied{Kind: kind, Project: o.project, Environment: o.environment, Name: o.name, Result: "deleted"})
			}
			fmt.Fprintln(c.out, printable(o.String()+" deleted"))
			return nil
		},
	}
	c.ofEnvironment(cmd, kind, &environment)
	return cmd
}

// editCommand opens an object in an editor, and applies what is saved there.
func (c *cli) editCommand(kind, use string, complete completion) *cobra.Command {
	return &cobra.Command{
		Use: "edit " + use, Short: "Change a " + strings.ToLower(kind) + " in an editor ($VISUAL, $EDITOR)", Args: cobra.ExactArgs(len(strings.Fields(use))), ValidArgsFunction: complete,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			o := named(kind, args, "")
			now, api, err := c.found(ctx, o)
			if err != nil {
				return err
			}
			var before strings.Builder
			fmt.Fprintf(&before, "# %s, revision %v. Save to apply; what is left out is removed. Leave it as it is to change nothing.\n", o, now["revision"])
			if err := writeDocument(&before, now.file(kindOf(kind))); err != nil {
				return err
			}
			file, err := writeTemporary(before.String())
			if err != nil {
				return err
			}
			if err := c.edit(ctx, file); err != nil {
				return errors.Join(err, os.Remove(file))
			}
			after, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			if string(after) == before.String() {
				fmt.Fprintln(c.out, printable(o.String()+" "+wasUnchanged))
				return os.Remove(file)
			}
			result, err := c.applyEdited(ctx, api, file, o, now)
			if err != nil {
				return fmt.Errorf("%w\nYour text is kept in %s", err, file)
			}
			fmt.Fprintln(c.out, printable(o.String()+" "+result))
			return os.Remove(file)
		},
	}
}

// applyEdited applies an edited object, if nobody has changed it since it was read.
func (c *cli) applyEdited(ctx context.Context, api *apiclient.API, file string, o object, now record) (string, error) {
	doc, err := c.readDocument(file)
	if err != nil {
		return "", err
	}
	p, err := identify(doc)
	if err != nil {
		return "", err
	}
	if p.kind.name != o.kind {
		return "", fmt.Errorf("%s: kind: it has to stay a %s", doc.place("kind"), o.kind)
	}
	body, err := doc.body()
	if err != nil {
		return "", err
	}
	next, err := p.kind.replace(ctx, api, o, now, false, body)
	if err != nil {
		return "", doc.locate(err)
	}
	return became(now, next), nil
}

func writeTemporary(text string) (string, error) {
	f, err := os.CreateTemp("", "quic-ctl-*.yaml")
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(text)
	return f.Name(), errors.Join(err, f.Close())
}

// edit runs the user's editor, which may have arguments.
func (c *cli) edit(ctx context.Context, file string) error {
	editor := c.getenv("VISUAL")
	if editor == "" {
		editor = c.getenv("EDITOR")
	}
	if editor == "" {
		editor = "vi"
	}
	words := append(strings.Fields(editor), file)
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.in, c.out, c.err
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("editor %s: %w", editor, err)
	}
	return nil
}

// createCommand makes an object from a file, which names what it belongs to.
func (c *cli) createCommand(kind, example string) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "create -f FILE", Short: "Make a " + strings.ToLower(kind) + " from a YAML file", Example: example, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			doc, api, err := c.documentAndAPI(file)
			if err != nil {
				return err
			}
			doc.values["kind"] = kind
			p, err := identify(doc)
			if err != nil {
				return err
			}
			body, err := doc.body()
			if err != nil {
				return err
			}
			made, err := p.kind.create(cmd.Context(), api, p.object, false, body)
			if err != nil {
				return doc.locate(err)
			}
			return c.made(made, p.String()+" made", made.text("id"))
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "YAML file, or - for the standard input")
	return cmd
}

const environmentExample = `  quic-ctl environment create -f prod.yaml
  quic-ctl task create --project shop --version 2.0 --environment prod

  # prod.yaml
  project: shop
  name: prod
  selector: env=prod          # hosts of a task that names none
  strategy: {canary: {percent: 10, soak: 10m}, on_failure: rollback}`

func (c *cli) environment() *cobra.Command {
	const use = "PROJECT ENVIRONMENT"
	all := &cobra.Command{Use: "list PROJECT", Short: "List the environments of a project", Args: cobra.ExactArgs(1), ValidArgsFunction: c.completeProjects,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			found, err := pages(cmd.Context(), 0, func(ctx context.Context, limit, offset int64) ([]apiclient.Environment, error) {
				page, err := apiclient.Read[apiclient.EnvironmentList](api.ListEnvironments(ctx, args[0], &apiclient.ListEnvironmentsParams{Limit: &limit, Offset: &offset}))
				return page.Environments, err
			})
			if err != nil {
				return err
			}
			return list(c, found, []string{"ENVIRONMENT", "SELECTOR", "DESCRIPTION", "CHANGED", "ID"}, func(e apiclient.Environment) []string {
				return []string{e.Name, e.Selector, e.Description, ago(e.UpdatedAt), e.ID}
			})
		}}
	environments := group("environment", "Make and show environments of projects", c.createCommand(kindEnvironment, environmentExample), all,
		c.getCommand(kindEnvironment, use, c.completeEnvironments), c.editCommand(kindEnvironment, use, c.completeEnvironments),
		c.deleteCommand(kindEnvironment, use, c.completeEnvironments))
	environments.Aliases = []string{"environments", "env"}
	return environments
}

const variableExample = `  quic-ctl variable set shop DB_HOST db.example.com --environment prod
  quic-ctl variable set shop DB_PASSWORD --secret < password.txt`

func (c *cli) variable() *cobra.Command {
	const use = "PROJECT VARIABLE"
	var environment string
	all := &cobra.Command{Use: "list PROJECT", Short: "List the variables of a project, or of an environment", Args: cobra.ExactArgs(1), ValidArgsFunction: c.completeProjects,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			page, err := apiclient.Read[apiclient.VariableList](api.ListVariables(cmd.Context(), args[0], &apiclient.ListVariablesParams{Environment: apiclient.Optional(environment)}))
			if err != nil {
				return err
			}
			return list(c, page.Variables, []string{"VARIABLE", "VALUE", "ENVIRONMENT", "DESCRIPTION", "CHANGED"}, func(v apiclient.Variable) []string {
				value := v.Value
				if v.Secret {
					value = "(secret)"
				}
				return []string{v.Name, short(value), v.Environment, v.Description, ago(v.UpdatedAt)}
			})
		}}
	c.ofEnvironment(all, kindVariable, &environment)
	variables := group("variable", "Set and show variables that ${NAME} stands for", c.variableSet(), all, c.getCommand(kindVariable, use, c.completeProjects),
		c.deleteCommand(kindVariable, use, c.completeProjects))
	variables.Aliases = []string{"variables", "var"}
	return variables
}

func (c *cli) variableSet() *cobra.Command {
	var environment, description string
	var secret bool
	cmd := &cobra.Command{
		Use: "set PROJECT NAME [VALUE]", Aliases: []string{"create", "edit"}, Short: "Make a variable, or change it", Example: variableExample, Args: cobra.RangeArgs(2, 3),
		ValidArgsFunction: c.completeProjects,
		Long: "Make a variable, or change it. Without VALUE it is asked for, or read from the standard input without its last line break.\n\n" +
			"A secret is kept encrypted and shown to nobody. Its value is not taken from the command line, which others on this host can see.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if secret && len(args) == 3 {
				return usagef("the value of a secret is not given on the command line, which others can see; leave it out to be asked for it, or give it on the standard input")
			}
			value, err := c.value(args)
			if err != nil {
				return err
			}
			doc := newDocument()
			doc.values = map[string]any{"value": value, "secret": secret, "description": description}
			o := named(kindVariable, args[:2], environment)
			now, api, err := c.found(cmd.Context(), o)
			if err != nil && apiclient.StatusOf(err) != 404 {
				return err
			}
			body, err := doc.body()
			if err != nil {
				return err
			}
			next, err := kindOf(kindVariable).replace(cmd.Context(), api, o, now, false, body)
			if err != nil {
				return doc.locate(err)
			}
			if c.json() {
				return c.writeJSON(next)
			}
			fmt.Fprintln(c.out, printable(o.String()+" "+became(now, next)))
			return nil
		},
	}
	c.ofEnvironment(cmd, kindVariable, &environment)
	cmd.Flags().BoolVar(&secret, "secret", false, "keep it encrypted, and show it to nobody")
	cmd.Flags().StringVar(&description, "description", "", "what it is for")
	return cmd
}

// value gives a variable's value: the argument, what is typed without being shown, or the standard input.
func (c *cli) value(args []string) (string, error) {
	if len(args) == 3 {
		return args[2], nil
	}
	if f, ok := c.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(c.err, "Value of %s: ", args[1])
		text, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(c.err)
		return string(text), err
	}
	const most = 1 << 20
	text, err := io.ReadAll(io.LimitReader(c.in, most))
	return string(bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))), err
}
