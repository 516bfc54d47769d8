package main

import (
	"context"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/quicflow/quicflow/internal/apiclient"
)

const versionExample = `  quic-ctl version create -f version.yaml
  quic-ctl version set-status hello 2.0 active

  # version.yaml
  project: hello
  version: "2.0"
  status: active
  script:
    install: |
      curl -fsS https://example.com/hello-2.0 -o hello && chmod +x hello
      systemctl restart hello
    health: {http: "http://127.0.0.1:${PORT}/health"}`

func (c *cli) version() *cobra.Command {
	versions := group("version", "Make and show versions; alone: the version of this program",
		c.versionCreate(), c.versionList(), c.getCommand(kindVersion, "PROJECT VERSION", c.completeVersions),
		c.editCommand(kindVersion, "PROJECT VERSION", c.completeVersions), c.deleteCommand(kindVersion, "PROJECT VERSION", c.completeVersions), c.versionSetStatus())
	versions.Aliases = []string{"versions"}
	refuse := versions.RunE
	versions.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return refuse(cmd, args)
		}
		fmt.Fprintf(c.out, "quic-ctl %s %s/%s %s\n", version, runtime.GOOS, runtime.GOARCH, runtime.Version())
		return nil
	}
	return versions
}

func (c *cli) versionCreate() *cobra.Command {
	var file, project, status string
	cmd := &cobra.Command{
		Use: "create -f FILE", Short: "Make a version from a YAML file", Example: versionExample, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			doc, api, err := c.documentAndAPI(file)
			if err != nil {
				return err
			}
			doc.take("kind")
			if inFile := doc.take("project"); project == "" {
				project = inFile
			}
			if project == "" {
				return usagef("name the project, in the file or with --project")
			}
			if status != "" {
				doc.set("status", status)
			}
			body, err := doc.body()
			if err != nil {
				return err
			}
			made, err := apiclient.Read[apiclient.Version](api.CreateVersionWithBody(cmd.Context(), project, nil, contentJSON, body))
			if err != nil {
				return doc.locate(err)
			}
			return c.made(made, fmt.Sprintf("version %s of %s made, %s", made.Version, made.Project, made.Status), made.ID)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "YAML file, or - for the standard input")
	cmd.Flags().StringVar(&project, "project", "", "project (default: the file's)")
	cmd.Flags().StringVar(&status, "status", "", "draft or active (default: the file's, else draft)")
	return cmd
}

func (c *cli) versionList() *cobra.Command {
	var search, status string
	cmd := &cobra.Command{Use: "list PROJECT", Short: "List the versions of a project", Args: cobra.ExactArgs(1), ValidArgsFunction: c.completeProjects,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			found, err := pages(cmd.Context(), 0, func(ctx context.Context, limit, offset int64) ([]apiclient.Version, error) {
				params := &apiclient.ListVersionsParams{Search: apiclient.Optional(search), Limit: &limit, Offset: &offset}
				if status != "" {
					params.Status = new(apiclient.ListVersionsParamsStatus(status))
				}
				page, err := apiclient.Read[apiclient.VersionList](api.ListVersions(ctx, args[0], params))
				return page.Versions, err
			})
			if err != nil {
				return err
			}
			return list(c, found, []string{"VERSION", "STATUS", "MADE", "ID"}, func(v apiclient.Version) []string {
				return []string{v.Version, string(v.Status), ago(v.CreatedAt), v.ID}
			})
		}}
	cmd.Flags().StringVar(&search, "search", "", "only those with this in their name")
	cmd.Flags().StringVar(&status, "status", "", "only those that are draft, active or deprecated")
	return cmd
}

func (c *cli) versionSetStatus() *cobra.Command {
	return &cobra.Command{
		Use: "set-status PROJECT VERSION draft|active|deprecated", Short: "Say whether a version may be deployed", Args: cobra.ExactArgs(3), ValidArgsFunction: c.completeVersions,
		RunE: func(cmd *cobra.Command, args []string) error {
			now, api, err := c.found(cmd.Context(), named(kindVersion, args[:2], ""))
			if err != nil {
				return err
			}
			change := apiclient.VersionChange{Status: apiclient.VersionChangeStatus(args[2])}
			v, err := apiclient.Read[apiclient.Version](api.ChangeVersion(cmd.Context(), now.text("id"), nil, change))
			if err != nil {
				return err
			}
			return c.made(v, fmt.Sprintf("version %s of %s is %s", v.Version, v.Project, v.Status), v.ID)
		},
	}
}

// documentAndAPI reads the file that a command wants and prepares the client.
func (c *cli) documentAndAPI(file string) (*document, *apiclient.API, error) {
	if file == "" {
		return nil, nil, usagef("name a file with -f")
	}
	doc, err := c.readDocument(file)
	if err != nil {
		return nil, nil, err
	}
	api, err := c.api()
	return doc, api, err
}

// made shows what was made or changed: as JSON, or in words, with the id alone on the last line.
func (c *cli) made(v any, words, id string) error {
	if c.json() {
		return c.writeJSON(v)
	}
	fmt.Fprintln(c.err, words)
	fmt.Fprintln(c.out, id)
	return nil
}
