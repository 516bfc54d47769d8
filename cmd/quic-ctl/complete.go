package main

import (
	"github.com/spf13/cobra"

	"github.com/quicflow/quicflow/internal/apiclient"
)

// The commands that agents know by themselves, for completion only: which there are is for each agent to say.
var commandTypes = []string{"exec_shell", "get_status", "system.info", "system.collect_info", "process.list", "container.list", "container.logs", "ping", "echo"}

func (c *cli) completeTypes(cmd *cobra.Command) {
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(commandTypes, cobra.ShellCompDirectiveNoFileComp))
}

// completeClients gives the ids of agents that begin with what is there. Without a server there are none.
func (c *cli) completeClients(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	if len(args) > 0 { // what stands after -- may be a file
		return nil, cobra.ShellCompDirectiveDefault
	}
	return c.complete(func(api *apiclient.API) ([]string, error) {
		page, err := apiclient.Read[apiclient.ClientList](api.ListClients(cmd.Context(), &apiclient.ListClientsParams{
			Search: apiclient.Optional(begun), Limit: new(int64(pageSize)),
		}))
		var ids []string
		for _, client := range page.Clients {
			ids = append(ids, client.ClientID)
		}
		return ids, err
	}), none
}

// completeJobs gives the ids of the newest jobs.
func (c *cli) completeJobs(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.complete(func(api *apiclient.API) ([]string, error) {
		page, err := apiclient.Read[apiclient.BatchJobList](api.ListBatchJobs(cmd.Context(), &apiclient.ListBatchJobsParams{Limit: new(int64(50))}))
		var ids []string
		for _, j := range page.Jobs {
			ids = append(ids, j.JobID+"\t"+string(j.Status)+", "+j.CommandType)
		}
		return ids, err
	}), cobra.ShellCompDirectiveNoFileComp
}

// completion gives what may stand after some arguments.
type completion = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective)

func (c *cli) completeProjects(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.complete(func(api *apiclient.API) ([]string, error) {
		page, err := apiclient.Read[apiclient.ProjectList](api.ListProjects(cmd.Context(), &apiclient.ListProjectsParams{
			Search: apiclient.Optional(begun), Limit: new(int64(pageSize)),
		}))
		var names []string
		for _, p := range page.Projects {
			names = append(names, p.Name)
		}
		return names, err
	}), cobra.ShellCompDirectiveNoFileComp
}

// completeVersions completes PROJECT VERSION.
func (c *cli) completeVersions(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) != 1 {
		return c.completeProjects(cmd, args, begun)
	}
	return c.complete(func(api *apiclient.API) ([]string, error) {
		page, err := apiclient.Read[apiclient.VersionList](api.ListVersions(cmd.Context(), args[0], &apiclient.ListVersionsParams{
			Search: apiclient.Optional(begun), Limit: new(int64(pageSize)),
		}))
		var names []string
		for _, v := range page.Versions {
			names = append(names, v.Version+"\t"+string(v.Status))
		}
		return names, err
	}), cobra.ShellCompDirectiveNoFileComp
}

// completeEnvironments completes PROJECT ENVIRONMENT.
func (c *cli) completeEnvironments(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) != 1 {
		return c.completeProjects(cmd, args, begun)
	}
	return c.complete(func(api *apiclient.API) ([]string, error) {
		page, err := apiclient.Read[apiclient.EnvironmentList](api.ListEnvironments(cmd.Context(), args[0], &apiclient.ListEnvironmentsParams{Limit: new(int64(pageSize))}))
		var names []string
		for _, e := range page.Environments {
			names = append(names, e.Name)
		}
		return names, err
	}), cobra.ShellCompDirectiveNoFileComp
}

// complete asks the server for what may stand there; the shell shows no errors.
func (c *cli) complete(ask func(*apiclient.API) ([]string, error)) []string {
	if c.options.check(c.getenv) != nil { // completion comes by without a PersistentPreRun
		return nil
	}
	api, err := c.api()
	if err != nil {
		return nil
	}
	words, err := ask(api)
	if err != nil {
		return nil
	}
	return words
}
