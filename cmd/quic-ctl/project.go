package main

import (
	"context"

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
	var search, of string
	all := &cobra.Command{Use: "list", Short: "List projects", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		api, err := c.api()
		if err != nil {
			return err
		}
		found, err := pages(cmd.Context(), 0, func(ctx context.Context, limit, offset int64) ([]apiclient.Project, error) {
			params := &apiclient.ListProjectsParams{Search: apiclient.Optional(search), Limit: &limit, Offset: &offset}
			if of != "" {
				params.Type = new(apiclient.ListProjectsParamsType(of))
			}
			page, err := apiclient.Read[apiclient.ProjectList](api.ListProjects(ctx, params))
			return page.Projects, err
		})
		if err != nil {
			return err
		}
		return list(c, found, []string{"PROJECT", "TYPE", "DESCRIPTION", "CHANGED", "ID"}, func(p apiclient.Project) []string {
			return []string{p.Name, string(p.Type), p.Description, ago(p.UpdatedAt), p.ID}
		})
	}}
	all.Flags().StringVar(&search, "search", "", "only those with this in their name")
	all.Flags().StringVar(&of, "type", "", "only of this type: script, container, git or kubernetes")
	const use = "PROJECT"
	projects := group("project", "Make and show projects", c.createCommand(kindProject, projectExample), all, c.getCommand(kindProject, use, c.completeProjects),
		c.editCommand(kindProject, use, c.completeProjects), c.deleteCommand(kindProject, use, c.completeProjects), c.projectRefs())
	projects.Aliases = []string{"projects"}
	return projects
}
