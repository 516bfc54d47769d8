package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/quicflow/quicflow/internal/apiclient"
)

// driftTimeout is how long the server may look at a fleet: it asks some of the agents at a time, each of which may take its time.
const driftTimeout = 15 * time.Minute

func (c *cli) drift() *cobra.Command {
	var check apiclient.DriftCheck
	cmd := &cobra.Command{
		Use: "drift", Short: "Ask the agents what runs, and show where that differs from what was deployed", Args: cobra.NoArgs,
		Long: `Ask the agents what runs, and show where that differs from what was deployed. Nothing is changed.

Exit code 3: something has drifted; 4: nothing that was looked at has, but not all could be.`,
		Example: "  quic-ctl drift --project shop\n  quic-ctl drift --selector env=prod --all",
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.apiThatWaits(driftTimeout)
			if err != nil {
				return err
			}
			report, err := apiclient.Read[apiclient.DriftReport](api.CheckDrift(cmd.Context(), check))
			if err != nil {
				return err
			}
			if err := c.showDrift(report); err != nil {
				return err
			}
			switch {
			case report.Drifted > 0:
				return exitWith{exitTaskFailed}
			case report.Unreachable > 0 || report.Counts[string(apiclient.HostDriftDriftUnknown)] > 0:
				return exitWith{exitTaskPartial}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&check.Project, "project", "", "only of this project")
	cmd.Flags().StringSliceVar(&check.Targets.Clients, "targets", nil, "only on these agents")
	cmd.Flags().StringVar(&check.Targets.Selector, "selector", "", "only on hosts that it picks, such as env=prod")
	cmd.Flags().BoolVar(&check.All, "all", false, "show hosts without drift, too")
	return cmd
}

func (c *cli) showDrift(report apiclient.DriftReport) error {
	if c.json() {
		return c.writeJSON(report)
	}
	if len(report.Hosts) > 0 {
		rows := make([][]string, 0, len(report.Hosts))
		for _, h := range report.Hosts {
			drift := string(h.Drift)
			if !h.Reached {
				drift = "not reached"
			}
			rows = append(rows, []string{h.Project, h.ClientID, h.Version, drift, short(h.Reason)})
		}
		c.table([]string{"PROJECT", "CLIENT", "DEPLOYED", "DRIFT", "WHY"}, rows)
	}
	fmt.Fprintf(c.out, "%d looked at, %d drifted, %d not reached\n", report.Checked, report.Drifted, report.Unreachable)
	return nil
}

func (c *cli) containerLogs() *cobra.Command {
	var params apiclient.ContainerLogsParams
	var since string
	var tail int64
	var follow, timestamps bool
	cmd := &cobra.Command{
		Use: "container-logs TASK CLIENT", Short: "Show the output of what runs of a task's project on a host", Args: cobra.ExactArgs(2),
		Long:    "Show the output of what runs of a task's project on a host: of its container, or of its pods. It is read there, now.",
		Example: "  quic-ctl task container-logs TASK web-1 --tail 50 -f",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			params = apiclient.ContainerLogsParams{Tail: &tail, Since: apiclient.Optional(since), Follow: apiclient.Optional(follow), Timestamps: apiclient.Optional(timestamps)}
			res, err := api.ContainerLogs(cmd.Context(), args[0], args[1], &params)
			return apiclient.Copy(safeWriter{c}, res, err)
		},
	}
	cmd.Flags().Int64Var(&tail, "tail", 200, "lines at the end; -1 is all")
	cmd.Flags().StringVar(&since, "since", "", "how long ago (10m), or when (2026-01-31T12:00:00Z)")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is written later")
	cmd.Flags().BoolVar(&timestamps, "timestamps", false, "show when each line was written")
	return cmd
}

// safeWriter is the output of a host as a terminal may have it.
type safeWriter struct{ c *cli }

func (w safeWriter) Write(p []byte) (int, error) {
	_, err := fmt.Fprint(w.c.out, w.c.shown(w.c.out, string(p)))
	return len(p), err
}
