package main

import (
	"github.com/spf13/cobra"

	"github.com/quicflow/quicflow/internal/apiclient"
)

const projectExample = `  quic-ctl project create -f project.yaml

  # project.yaml
  name: hello
  script:
    work_dir: /opt/hello
    env: {PORT: "8080"}`

func (c *cli) project() *cobra.Command {
	var file string
	create := &cobra.Command{
		Use: "create -f FILE", Short: "Make a project from a YAML file", Example: projectExample, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			doc, api, err := c.documentAndAPI(file)
			if err != nil {
				return err
			}
			body, err := doc.body()
			if err != nil {
				return err
			}
			made, err := apiclient.Read[apiclient.Project](api.CreateProjectWithBody(cmd.Context(), "application/json", body))
			if err != nil {
				return doc.locate(err)
			}
			return c.made(made, "project "+made.Name+" made", made.ID)
		},
	}
	create.Flags().StringVarP(&file, "file", "f", "", "YAML file, or - for the standard input")

	all := &cobra.Command{Use: "list", Short: "List projects", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		api, err := c.api()
		if err != nil {
			return err
		}
		answer, err := apiclient.Read[apiclient.ProjectList](api.ListProjects(cmd.Context()))
		if err != nil {
			return err
		}
		return list(c, answer.Projects, []string{"PROJECT", "TYPE", "DESCRIPTION", "MADE", "ID"}, func(p apiclient.Project) []string {
			return []string{p.Name, string(p.Type), p.Description, ago(p.CreatedAt), p.ID}
		})
	}}
	get := &cobra.Command{Use: "get PROJECT", Short: "Show a project", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		api, err := c.api()
		if err != nil {
			return err
		}
		p, err := apiclient.Read[apiclient.Project](api.GetProject(cmd.Context(), args[0]))
		if err != nil {
			return err
		}
		return c.writeJSON(p)
	}}
	projects := group("project", "Make and show projects", create, all, get)
	projects.Aliases = []string{"projects"}
	return projects
}
