package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/quicflow/quicflow/internal/apiclient"
)

const aboutMessages = "A message goes once over the connection of the moment; it is neither kept nor repeated.\n" +
	"What is to be done once, and known afterwards, is a command: see quic-ctl command and quic-ctl batch."

// messageFlags are the parts of a message.
type messageFlags struct {
	kind, payload string
	timeout       time.Duration
}

func (m *messageFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&m.kind, "type", "ping", "type of the message, which a handler of the agent is for; ping and echo are built in")
	cmd.Flags().StringVar(&m.payload, "payload", "", "JSON, or any text")
	cmd.Flags().DurationVar(&m.timeout, "timeout", 0, "how long an answer is waited for (default: the server's, 30s)")
}

func (m *messageFlags) document(cmd *cobra.Command) (*document, error) {
	doc := newDocument()
	doc.set("type", m.kind)
	if m.payload != "" {
		if json.Valid([]byte(m.payload)) {
			doc.set("payload", json.RawMessage(m.payload))
		} else {
			doc.set("payload", m.payload)
		}
	}
	if cmd.Flags().Changed("timeout") {
		if m.timeout <= 0 {
			return nil, usagef("--timeout %s is not a time to wait", m.timeout)
		}
		doc.set("timeout", m.timeout.Seconds())
	}
	return doc, nil
}

func (c *cli) send() *cobra.Command {
	var m messageFlags
	var noWait bool
	cmd := &cobra.Command{
		Use: "send CLIENT --type T", Short: "Send a message to an agent", Long: "Send a message to an agent and show its answer.\n\n" + aboutMessages,
		Example: "  quic-ctl send web-1 --type ping\n  quic-ctl send web-1 --type reload --payload '{\"config\": \"/etc/shop.yaml\"}'",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: c.completeClients,
		RunE: func(cmd *cobra.Command, args []string) error {
			doc, err := m.document(cmd)
			if err != nil {
				return err
			}
			doc.set("client_id", args[0])
			doc.set("wait", !noWait)
			body, err := doc.body()
			if err != nil {
				return err
			}
			api, err := c.apiThatWaits(m.timeout)
			if err != nil {
				return err
			}
			answer, err := apiclient.Read[apiclient.MessageAnswer](api.SendMessageWithBody(cmd.Context(), "application/json", body))
			if err != nil {
				return err
			}
			switch {
			case c.json():
				if err := c.writeJSON(answer); err != nil {
					return err
				}
			case !answer.Success:
				fmt.Fprintln(c.err, printable(fmt.Sprintf("%s %s: %s", answer.ClientID, answer.Outcome, answer.Error)))
			case noWait:
				fmt.Fprintln(c.out, "sent")
			default:
				fmt.Fprintln(c.out, printable(fmt.Sprintf("%s %s%s", answer.Type, answer.Payload, answer.PayloadBase64)))
			}
			if !answer.Success {
				return exitWith{exitTaskFailed}
			}
			return nil
		},
	}
	m.register(cmd)
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait for an answer")
	return cmd
}

func (c *cli) broadcast() *cobra.Command {
	var m messageFlags
	var selector string
	var all bool
	cmd := &cobra.Command{
		Use: "broadcast (--selector S | --all) --type T", Short: "Send a message to many agents", Args: cobra.NoArgs,
		Long:    "Send a message to many agents and say how many answered.\n\n" + aboutMessages,
		Example: "  quic-ctl broadcast --all\n  quic-ctl broadcast --selector env=prod --type reload",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all == (selector != "") {
				return usagef("say to whom: --selector or --all")
			}
			doc, err := m.document(cmd)
			if err != nil {
				return err
			}
			if all {
				doc.set("all", true)
			} else {
				doc.set("selector", selector)
			}
			body, err := doc.body()
			if err != nil {
				return err
			}
			api, err := c.apiThatWaits(m.timeout)
			if err != nil {
				return err
			}
			answer, err := apiclient.Read[apiclient.BroadcastAnswer](api.BroadcastMessageWithBody(cmd.Context(), "application/json", body))
			if err != nil {
				return err
			}
			if err := c.showBroadcast(answer); err != nil {
				return err
			}
			switch {
			case answer.Success:
				return nil
			case answer.Outcomes["answered"] > 0:
				return exitWith{exitTaskPartial}
			}
			return exitWith{exitTaskFailed}
		},
	}
	m.register(cmd)
	cmd.Flags().StringVar(&selector, "selector", "", "hosts by label, such as env=prod")
	cmd.Flags().BoolVar(&all, "all", false, "every agent that is connected to this server")
	return cmd
}

func (c *cli) showBroadcast(answer apiclient.BroadcastAnswer) error {
	if c.json() {
		return c.writeJSON(answer)
	}
	line := fmt.Sprintf("%d/%d answered", answer.Outcomes["answered"], answer.Total)
	for _, outcome := range slices.Sorted(maps.Keys(answer.Outcomes)) {
		if outcome != "answered" {
			line += fmt.Sprintf(" · %d %s", answer.Outcomes[outcome], outcome)
		}
	}
	fmt.Fprintf(c.out, "%s · took %s\n", line, time.Duration(answer.DurationMs)*time.Millisecond)
	grouped := failureGroups{}
	for _, f := range answer.Failures {
		grouped.add(string(f.Outcome), f.Error, f.ClientID)
	}
	grouped.print(c)
	return nil
}
