package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quicflow/quicflow/internal/apiclient"
)

func (c *cli) preview() *cobra.Command {
	var task taskFlags
	cmd := &cobra.Command{
		Use: "preview", Short: "Show what a task would do, without doing it", Args: cobra.NoArgs,
		Example: "  quic-ctl preview -f task.yaml\n  quic-ctl preview --project hello --version 2.0 --selector '*' --canary 20\n  quic-ctl task preview --project hello --version 2.0 --environment prod",
		RunE: func(cmd *cobra.Command, _ []string) error {
			doc, err := task.document(c, cmd.Flags())
			if err != nil {
				return err
			}
			api, err := c.api()
			if err != nil {
				return err
			}
			body, err := doc.body()
			if err != nil {
				return err
			}
			p, err := apiclient.Read[apiclient.Preview](api.PreviewTaskWithBody(cmd.Context(), "application/json", body))
			if err != nil {
				return doc.locate(err)
			}
			if c.json() {
				return c.writeJSON(p)
			}
			c.showPreview(p)
			return nil
		},
	}
	task.register(cmd.Flags())
	return cmd
}

func (c *cli) showPreview(p apiclient.Preview) {
	for _, warning := range p.Warnings {
		fmt.Fprintln(c.out, c.paint(c.out, caution, "! "+warning))
	}
	if p.Action == apiclient.PreviewActionDeploy {
		c.showValues(p.Values)
	}
	if p.Total == 0 {
		return
	}
	fmt.Fprintf(c.out, "\n%d %s: %s\n", p.Total, plural(int(p.Total), "host"), waves(p.Waves))
	for _, g := range p.Groups {
		from := ""
		if g.From != "" {
			from = " from " + g.From
		}
		if g.State != "" && g.State != apiclient.PreviewGroupStateInstalled {
			from += " (" + string(g.State) + ")"
		}
		switch {
		case g.Found != "":
			from += " (" + g.Found + " runs)"
		case g.Drift == apiclient.PreviewGroupDriftVersion:
			from += " (another configuration runs)"
		case g.Drift != "":
			from += " (" + string(g.Drift) + ")"
		}
		more := ""
		if int(g.Targets) > len(g.Sample) {
			more = ", …"
		}
		fmt.Fprintf(c.out, "  %d  %s%s   %s%s\n", g.Targets, g.Action, from, c.paint(c.out, faint, strings.Join(g.Sample, ", ")), more)
		for _, change := range g.Changes {
			fmt.Fprintf(c.out, "       %s: %s → %s\n", change.Path, short(change.Before), short(change.After))
		}
	}
}

func (c *cli) showValues(values []apiclient.PreviewValue) {
	rows := make([][]string, 0, len(values))
	for _, v := range values {
		rows = append(rows, []string{v.Path, short(v.Value), string(v.Layer)})
	}
	c.table([]string{"VALUE", "IS", "FROM"}, rows)
}

// waves writes a plan as sizes.
func waves(plan []apiclient.PreviewWave) string {
	text := make([]string, 0, len(plan))
	for _, w := range plan {
		name := fmt.Sprintf("wave %d", w.Number)
		if w.Canary {
			name = "canary"
		}
		text = append(text, fmt.Sprintf("%s %d", name, w.Size))
	}
	return strings.Join(text, ", ")
}

// short gives the first line of a text, cut to what a table can show.
func short(text string) string {
	const most = 60
	first, _, more := strings.Cut(strings.TrimSpace(text), "\n")
	if runes := []rune(first); len(runes) > most {
		first, more = string(runes[:most]), true
	}
	if more {
		first += "…"
	}
	if first == "" {
		return "(none)"
	}
	return printable(first)
}
