package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/quicflow/quicflow/internal/apiclient"
)

func (c *cli) projectRefs() *cobra.Command {
	var environment, client string
	cmd := &cobra.Command{
		Use: "refs PROJECT", Short: "List the branches and tags of a git project's repository", Args: cobra.ExactArgs(1),
		Long: "List the branches and tags of a git project's repository, as an agent sees it: the default branch first, then the other branches, then the tags.",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			found, err := apiclient.Read[apiclient.RefList](api.ListRefs(cmd.Context(), args[0], &apiclient.ListRefsParams{
				Environment: apiclient.Optional(environment), ClientID: apiclient.Optional(client),
			}))
			if err != nil {
				return err
			}
			if c.json() {
				return c.writeJSON(found)
			}
			rows := make([][]string, 0, len(found.Refs))
			for _, r := range found.Refs {
				name := r.Name
				if r.Default {
					name += " (default)"
				}
				rows = append(rows, []string{string(r.Kind), name, r.Commit[:min(len(r.Commit), 12)]})
			}
			c.table([]string{"KIND", "REF", "COMMIT"}, rows)
			if found.Truncated {
				fmt.Fprintln(c.err, "There are more than are shown.")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&environment, "environment", "", "whose variables count")
	cmd.Flags().StringVar(&client, "client", "", "the agent that shall look (default: one that is connected and can do git deployments)")
	return cmd
}
