package main

import (
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
		c.versionCreate(), c.versionList(), c.versionGet(), c.versionSetStatus())
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
			made, err := apiclient.Read[apiclient.Version](api.CreateVersionWithBody(cmd.Context(), project, "application/json", body))
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
	return &cobra.Command{Use: "list PROJECT", Short: "List the versions of a project", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		api, err := c.api()
		if err != nil {
			return err
		}
		answer, err := apiclient.Read[apiclient.VersionList](api.ListVersions(cmd.Context(), args[0]))
		if err != nil {
			return err
		}
		return list(c, answer.Versions, []string{"VERSION", "STATUS", "MADE", "ID"}, func(v apiclient.Version) []string {
			return []string{v.Version, string(v.Status), ago(v.CreatedAt), v.ID}
		})
	}}
}

func (c *cli) versionGet() *cobra.Command {
	return &cobra.Command{Use: "get PROJECT VERSION", Short: "Show a version", Args: cobra.ExactArgs(2), RunE: func(cmd *cobra.Command, args []string) error {
		v, _, err := c.findVersion(cmd, args)
		if err != nil {
			return err
		}
		return c.writeJSON(v)
	}}
}

func (c *cli) versionSetStatus() *cobra.Command {
	return &cobra.Command{
		Use: "set-status PROJECT VERSION draft|active|deprecated", Short: "Say whether a version may be deployed", Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, api, err := c.findVersion(cmd, args)
			if err != nil {
				return err
			}
			change := apiclient.VersionChange{Status: apiclient.VersionChangeStatus(args[2])}
			v, err = apiclient.Read[apiclient.Version](api.ChangeVersion(cmd.Context(), v.ID, change))
			if err != nil {
				return err
			}
			return c.made(v, fmt.Sprintf("version %s of %s is %s", v.Version, v.Project, v.Status), v.ID)
		},
	}
}

// findVersion looks a version up by project and name, or id.
func (c *cli) findVersion(cmd *cobra.Command, args []string) (apiclient.Version, *apiclient.API, error) {
	api, err := c.api()
	if err != nil {
		return apiclient.Version{}, nil, err
	}
	answer, err := apiclient.Read[apiclient.VersionList](api.ListVersions(cmd.Context(), args[0]))
	if err != nil {
		return apiclient.Version{}, nil, err
	}
	for _, v := range answer.Versions {
		if v.Version == args[1] || v.ID == args[1] {
			return v, api, nil
		}
	}
	return apiclient.Version{}, nil, fmt.Errorf("project %s has no version %s", args[0], args[1])
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
