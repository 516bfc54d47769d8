package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/quicflow/quicflow/internal/apiclient"
)

func (c *cli) task() *cobra.Command {
	tasks := group("task", "Roll versions out, and steer that",
		c.taskCreate(), c.taskRetry(), c.preview(), c.taskList(), c.taskGet(), c.taskTargets(), c.containerLogs(), c.taskWatch())
	tasks.Aliases = []string{"tasks"}
	for _, steer := range []struct {
		name, short, done string
		do                func(api *apiclient.API, ctx context.Context, id string, body apiclient.Intervention) (*http.Response, error)
	}{
		{"promote", "Go on from the canary to the waves", "promoted", func(api *apiclient.API, ctx context.Context, id string, body apiclient.Intervention) (*http.Response, error) {
			return api.PromoteTask(ctx, id, body)
		}},
		{"pause", "Start nothing new until the task is resumed", "paused", func(api *apiclient.API, ctx context.Context, id string, body apiclient.Intervention) (*http.Response, error) {
			return api.PauseTask(ctx, id, body)
		}},
		{"resume", "Go on with a paused task", "resumed", func(api *apiclient.API, ctx context.Context, id string, body apiclient.Intervention) (*http.Response, error) {
			return api.ResumeTask(ctx, id, body)
		}},
		{"abort", "Stop a task: start nothing new, stop what runs", "being aborted", func(api *apiclient.API, ctx context.Context, id string, body apiclient.Intervention) (*http.Response, error) {
			return api.AbortTask(ctx, id, body)
		}},
		{"rollback", "Return the touched hosts to what they ran before", "being rolled back", func(api *apiclient.API, ctx context.Context, id string, body apiclient.Intervention) (*http.Response, error) {
			return api.RollbackTask(ctx, id, body)
		}},
	} {
		var body apiclient.Intervention
		cmd := &cobra.Command{Use: steer.name + " TASK", Short: steer.short, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			task, err := apiclient.Read[apiclient.Task](steer.do(api, cmd.Context(), args[0], body))
			if err != nil {
				return err
			}
			if c.json() {
				return c.writeJSON(task)
			}
			fmt.Fprintf(c.out, "%s %s: %s\n", task.Project, task.Version, steer.done)
			return nil
		}}
		cmd.Flags().StringVar(&body.Reason, "reason", "", "kept with the task")
		tasks.AddCommand(cmd)
	}
	return tasks
}

func (c *cli) taskList() *cobra.Command {
	var project, status string
	var limit int
	cmd := &cobra.Command{Use: "list", Short: "List tasks, the newest first", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		api, err := c.api()
		if err != nil {
			return err
		}
		found, err := pages(cmd.Context(), limit, func(ctx context.Context, limit, offset int64) ([]apiclient.Task, error) {
			answer, err := apiclient.Read[apiclient.TaskList](api.ListTasks(ctx, &apiclient.ListTasksParams{
				Project: apiclient.Optional(project), Status: apiclient.Optional(apiclient.ListTasksParamsStatus(status)),
				Limit: &limit, Offset: &offset,
			}))
			return answer.Tasks, err
		})
		if err != nil {
			return err
		}
		return list(c, found, []string{"TASK", "PROJECT", "VERSION", "STATUS", "DONE", "FAILED", "MADE", "BY"}, func(t apiclient.Task) []string {
			version := t.Version
			if t.Action == apiclient.TaskActionUninstall {
				version = "(uninstall)"
			}
			return []string{
				t.ID, t.Project, version, string(t.Status),
				fmt.Sprintf("%d/%d", t.Counts.Succeeded, t.Counts.Total), fmt.Sprint(t.Counts.Failed + t.Counts.Unknown),
				ago(t.CreatedAt), t.CreatedBy,
			}
		})
	}}
	cmd.Flags().StringVar(&project, "project", "", "only of this project")
	cmd.Flags().StringVar(&status, "status", "", "only of this status")
	cmd.Flags().IntVar(&limit, "limit", 20, "how many at most; 0 is all")
	return cmd
}

func (c *cli) taskGet() *cobra.Command {
	return &cobra.Command{Use: "get TASK", Short: "Show a task", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		api, err := c.api()
		if err != nil {
			return err
		}
		task, err := apiclient.Read[apiclient.Task](api.GetTask(cmd.Context(), args[0]))
		if err != nil {
			return err
		}
		return c.writeJSON(task)
	}}
}

func (c *cli) taskTargets() *cobra.Command {
	var state string
	wave := -1
	cmd := &cobra.Command{Use: "targets TASK", Short: "Show the hosts of a task", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		api, err := c.api()
		if err != nil {
			return err
		}
		found, err := targets(cmd.Context(), api, args[0], state, wave)
		if err != nil {
			return err
		}
		return list(c, found, []string{"CLIENT", "WAVE", "STATE", "BEFORE", "TIME", "ERROR"}, func(t apiclient.Target) []string {
			took := ""
			if !t.StartedAt.IsZero() && !t.FinishedAt.IsZero() {
				took = round(t.FinishedAt.Sub(t.StartedAt))
			}
			return []string{t.ClientID, waveName(int(t.Wave)), string(t.State), t.PreviousVersion, took, t.Error}
		})
	}}
	cmd.Flags().StringVar(&state, "state", "", "only in this state")
	cmd.Flags().IntVar(&wave, "wave", -1, "only of this wave; 0 is the canary")
	return cmd
}

func targets(ctx context.Context, api *apiclient.API, taskID, state string, wave int) ([]apiclient.Target, error) {
	return pages(ctx, 0, func(ctx context.Context, limit, offset int64) ([]apiclient.Target, error) {
		answer, err := apiclient.Read[apiclient.TargetList](api.ListTargets(ctx, taskID, &apiclient.ListTargetsParams{
			Wave: new(int64(wave)), State: apiclient.Optional(apiclient.ListTargetsParamsState(state)), Limit: &limit, Offset: &offset,
		}))
		return answer.Targets, err
	})
}

func waveName(number int) string {
	if number == 0 {
		return "canary"
	}
	return fmt.Sprint(number)
}
