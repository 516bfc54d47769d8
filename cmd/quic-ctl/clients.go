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
	clients := group("clients", "List agents; get, preview, revoke", list, get, c.clientsPreview(), revoke)
	clients.Aliases = []string{"client"}
	clients.Example = "  quic-ctl clients --status online --label env=prod\n  quic-ctl clients --selector 'env in (prod,stage),memory_mb>=4096'"
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
	var status, label, search, selector string
	var limit int
	flags := func(cmd *cobra.Command) {
		cmd.Flags().StringVar(&status, "status", "", "only online, reconnecting or offline ones")
		cmd.Flags().StringVar(&label, "label", "", "only those with a label: key=value, or key")
		cmd.Flags().StringVar(&selector, "selector", "", "only those that a task with this selector would be for")
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
			Selector: apiclient.Optional(selector),
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
		return c.listClients(found)
	}}
	flags(cmd)
	return cmd, flags
}

func (c *cli) listClients(clients []apiclient.Client) error {
	return list(c, clients, []string{"CLIENT", "STATUS", "HOST", "OS", "AGENT", "LABELS", "LAST SEEN"}, func(a apiclient.Client) []string {
		return []string{a.ClientID, string(a.Status), a.Hostname, strings.Trim(a.Os+"/"+a.Arch, "/"), a.AgentVersion, pairs(a.Labels), ago(a.LastSeenAt)}
	})
}

func (c *cli) clientsPreview() *cobra.Command {
	var selector string
	var targets []string
	cmd := &cobra.Command{
		Use: "preview", Short: "Show whom a selector or a list of ids picks", Args: cobra.NoArgs,
		Example: "  quic-ctl clients preview --selector 'env=prod,!maintenance'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if selector == "" && len(targets) == 0 {
				return usagef("say whom, with --selector or --targets")
			}
			api, err := c.api()
			if err != nil {
				return err
			}
			p, err := apiclient.Read[apiclient.TargetPreview](api.PreviewTargets(cmd.Context(), apiclient.Targets{
				Selector: selector, Clients: targets,
			}))
			if err != nil {
				return err
			}
			if c.json() {
				return c.writeJSON(p)
			}
			fmt.Fprintf(c.out, "%d %s: %d online, %d reconnecting, %d offline\n", p.Total, plural(int(p.Total), "host"), p.Online, p.Reconnecting, p.Offline)
			if len(p.Unknown) > 0 {
				fmt.Fprintln(c.out, c.paint(c.out, caution, "! not known: "+strings.Join(p.Unknown, ", ")))
			}
			if len(p.Clients) == 0 {
				return nil
			}
			fmt.Fprintln(c.out)
			if err := c.listClients(p.Clients); err != nil {
				return err
			}
			if more := int(p.Total) - len(p.Clients); more > 0 {
				fmt.Fprintf(c.out, "… and %d more\n", more)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&selector, "selector", "", "hosts by label, such as env=prod,os=linux,!maintenance; * is every agent")
	cmd.Flags().StringSliceVar(&targets, "targets", nil, "hosts by id")
	return cmd
}

// pairs writes a map as key=value,key=value.
func pairs(m map[string]string) string {
	text := make([]string, 0, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		text = append(text, key+"="+m[key])
	}
	return strings.Join(text, ",")
}
