package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/quicflow/quicflow/internal/apiclient"
)

func (c *cli) agent() *cobra.Command {
	var want apiclient.NewAgentToken
	token := &cobra.Command{
		Use: "token", Short: "Make a token with which agents join; it is alone on the last line", Args: cobra.NoArgs,
		Example: "  quic-ctl agent token --uses 10 --ttl 24h --id 'web-*'\n" +
			"  QUIC_JOIN_TOKEN=$(quic-ctl agent token | tail -n 1) quic-client -s SERVER:8474 -i web-1",
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			made, err := apiclient.Read[apiclient.AgentToken](api.CreateAgentToken(cmd.Context(), want))
			if err != nil {
				return err
			}
			if c.json() {
				return c.writeJSON(made)
			}
			fmt.Fprintf(c.err, "A join token for %d %s with an id like %s, until %s:\n",
				made.Uses, plural(int(made.Uses), "agent"), made.ID, made.ExpiresAt.Local().Format("2006-01-02 15:04:05"))
			fmt.Fprintln(c.out, made.Token)
			return nil
		},
	}
	token.Flags().Int64Var(&want.Uses, "uses", 1, "how many agents may join with it")
	token.Flags().StringVar(&want.TTL, "ttl", "1h", "how long it holds")
	token.Flags().StringVar(&want.ID, "id", "*", "glob that the agents' ids must match")
	token.Flags().BoolVar(&want.Replace, "replace", false, "a known id may join again; its older certificates are revoked")
	return group("agent", "Let agents join", token)
}

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}
