package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quicflow/quicflow/internal/apiclient"
)

const pageSize = 1000

// pages reads a list page by page, up to limit items; 0 is all.
func pages[T any](ctx context.Context, limit int, read func(ctx context.Context, limit, offset int64) ([]T, error)) ([]T, error) {
	items := []T{}
	for {
		want := pageSize
		if limit > 0 {
			want = min(want, limit-len(items))
		}
		more, err := read(ctx, int64(want), int64(len(items)))
		if err != nil {
			return nil, err
		}
		items = append(items, more...)
		if len(more) < want || limit > 0 && len(items) >= limit {
			return items, nil
		}
	}
}

func (c *cli) clients() *cobra.Command {
	list, flags := c.clientsList()
	get := &cobra.Command{
		Use: "get CLIENT", Short: "Show an agent", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			client, err := apiclient.Read[apiclient.Client](api.GetClient(cmd.Context(), args[0]))
			if err != nil {
				return err
			}
			return c.writeJSON(client)
		},
	}
	revoke := &cobra.Command{
		Use: "revoke CLIENT", Short: "Revoke an agent's certificates: it is shut out until it joins again with a --replace token",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			if err := apiclient.Done(api.RevokeClient(cmd.Context(), args[0])); err != nil {
				return err
			}
			fmt.Fprintf(c.out, "%s revoked\n", args[0])
			return nil
		},
	}
	clients := group("clients", "List agents; get, revoke", list, get, revoke)
	clients.Aliases = []string{"client"}
	clients.Example = "  quic-ctl clients --status online --label env=prod"
	refuse := clients.RunE
	flags(clients)
	clients.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return refuse(cmd, args)
		}
		return list.RunE(cmd, args)
	}
	return clients
}

// clientsList gives the command that lists agents, and a function that adds its flags to another command.
func (c *cli) clientsList() (*cobra.Command, func(*cobra.Command)) {
	var status, label, search string
	var limit int
	flags := func(cmd *cobra.Command) {
		cmd.Flags().StringVar(&status, "status", "", "only online, reconnecting or offline ones")
		cmd.Flags().StringVar(&label, "label", "", "only those with a label: key=value, or key")
		cmd.Flags().StringVar(&search, "search", "", "only those with this in id or host name")
		cmd.Flags().IntVar(&limit, "limit", 0, "how many at most (default: all)")
	}
	cmd := &cobra.Command{Use: "list", Short: "List agents", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		api, err := c.api()
		if err != nil {
			return err
		}
		filter := apiclient.ListClientsParams{
			Status: apiclient.Optional(apiclient.ListClientsParamsStatus(status)),
			Label:  apiclient.Optional(label), Search: apiclient.Optional(search),
		}
		found, err := pages(cmd.Context(), limit, func(ctx context.Context, limit, offset int64) ([]apiclient.Client, error) {
			page := filter
			page.Limit, page.Offset = &limit, &offset
			answer, err := apiclient.Read[apiclient.ClientList](api.ListClients(ctx, &page))
			return answer.Clients, err
		})
		if err != nil {
			return err
		}
		return list(c, found, []string{"CLIENT", "STATUS", "HOST", "OS", "AGENT", "LABELS", "LAST SEEN"}, func(a apiclient.Client) []string {
			return []string{a.ClientID, string(a.Status), a.Hostname, strings.Trim(a.Os+"/"+a.Arch, "/"), a.AgentVersion, pairs(a.Labels), ago(a.LastSeenAt)}
		})
	}}
	flags(cmd)
	return cmd, flags
}

// pairs writes a map as key=value,key=value.
func pairs(m map[string]string) string {
	text := make([]string, 0, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		text = append(text, key+"="+m[key])
	}
	return strings.Join(text, ",")
}
