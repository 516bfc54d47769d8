package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/quicflow/quicflow/internal/apiclient"
)

func (c *cli) installations() *cobra.Command {
	var project, client string
	cmd := &cobra.Command{
		Use: "installations", Short: "Show what version of a project each host runs", Args: cobra.NoArgs,
		Example: "  quic-ctl installations --project hello",
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			found, err := pages(cmd.Context(), 0, func(ctx context.Context, limit, offset int64) ([]apiclient.Installation, error) {
				answer, err := apiclient.Read[apiclient.InstallationList](api.ListInstallations(ctx, &apiclient.ListInstallationsParams{
					Project: apiclient.Optional(project), ClientID: apiclient.Optional(client), Limit: &limit, Offset: &offset,
				}))
				return answer.Installations, err
			})
			if err != nil {
				return err
			}
			return list(c, found, []string{"PROJECT", "CLIENT", "VERSION", "STATE", "ATTEMPTED", "SINCE"}, func(i apiclient.Installation) []string {
				return []string{i.Project, i.ClientID, i.Version, string(i.State), i.Attempted, ago(i.InstalledAt)}
			})
		},
	}
	cmd.Flags().StringVar(&project, "project", "", "only of this project")
	cmd.Flags().StringVar(&client, "client", "", "only on this agent")
	return cmd
}
