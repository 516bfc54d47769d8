package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/quicflow/quicflow/internal/apiclient"
)

const scheduleExample = `  quic-ctl schedule create nightly --cron '30 2 * * *' --timezone Europe/Berlin --project hello --version 2.0 --selector env=test
  quic-ctl schedule create launch --at '2027-01-09 08:00' --timezone Asia/Shanghai -f launch.yaml
  quic-ctl schedule create again --cron '@every 6h' --overlap buffer_one -f again.yaml

  # again.yaml
  catchup_window: 1h
  jitter: 5m
  task:
    project: hello
    version: "2.0"
    targets: {selector: "*"}`

// timeFlags say when something is to happen.
type timeFlags struct{ at, cron, zone string }

func (f *timeFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.at, "at", "", "once, at a time: 2027-01-09T08:00:00Z, or 2027-01-09 08:00 by the clock of --timezone, else of this machine")
	flags.StringVar(&f.cron, "cron", "", "again and again: minute, hour, day of month, month, day of week; or @daily, @every 6h")
	flags.StringVar(&f.zone, "timezone", "", "zone whose clock counts, such as Europe/Berlin (default UTC for --cron)")
}

// set puts the times into a document.
func (f *timeFlags) set(flags *pflag.FlagSet, doc *document) error {
	if flags.Changed("at") {
		at, err := f.when()
		if err != nil {
			return err
		}
		doc.set("at", at.Format(time.RFC3339))
	}
	if flags.Changed("cron") {
		doc.set("cron", f.cron)
	}
	if flags.Changed("timezone") {
		doc.set("timezone", f.zone)
	}
	return nil
}

func (f *timeFlags) when() (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, f.at); err == nil {
		return at, nil
	}
	zone := time.Local
	if f.zone != "" {
		var err error
		if zone, err = time.LoadLocation(f.zone); err != nil {
			return time.Time{}, usagef("--timezone: %q is not known on this machine; give --at as 2027-01-09T08:00:00+01:00", f.zone)
		}
	}
	for _, form := range []string{"2006-01-02 15:04", "2006-01-02 15:04:05"} {
		if at, err := time.ParseInLocation(form, f.at, zone); err == nil {
			return at, nil
		}
	}
	return time.Time{}, usagef("--at: %q is not a time such as 2027-01-09T08:00:00Z or 2027-01-09 08:00", f.at)
}

func (c *cli) schedule() *cobra.Command {
	schedules := group("schedule", "Make tasks at their time: once, or by cron",
		c.scheduleCreate(), c.scheduleList(), c.scheduleGet(), c.scheduleFires(), c.schedulePreview(), c.scheduleTrigger(), c.scheduleDelete())
	schedules.Aliases = []string{"schedules"}
	for _, control := range []struct {
		name, short, done string
		do                func(api *apiclient.API, ctx context.Context, ref, note string) (apiclient.Schedule, error)
	}{
		{"pause", "Let a schedule fire only when it is triggered", "paused",
			func(api *apiclient.API, ctx context.Context, ref, note string) (apiclient.Schedule, error) {
				return apiclient.Read[apiclient.Schedule](api.PauseSchedule(ctx, ref, apiclient.ScheduleNote{Note: note}))
			}},
		{"resume", "Let a paused schedule fire again", "resumed",
			func(api *apiclient.API, ctx context.Context, ref, note string) (apiclient.Schedule, error) {
				return apiclient.Read[apiclient.Schedule](api.ResumeSchedule(ctx, ref, apiclient.ScheduleNote{Note: note}))
			}},
	} {
		var note string
		cmd := &cobra.Command{Use: control.name + " SCHEDULE", Short: control.short, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			changed, err := control.do(api, cmd.Context(), args[0], note)
			if err != nil {
				return err
			}
			if c.json() {
				return c.writeJSON(changed)
			}
			fmt.Fprintf(c.out, "schedule %s: %s\n", changed.Name, control.done)
			return nil
		}}
		cmd.Flags().StringVar(&note, "note", "", "kept with the schedule")
		cmd.ValidArgsFunction = c.completeSchedules
		schedules.AddCommand(cmd)
	}
	return schedules
}

func (c *cli) scheduleCreate() *cobra.Command {
	var task taskFlags
	var times timeFlags
	var overlap, window, jitter, note string
	var paused bool
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make a schedule", Example: scheduleExample, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			doc := newDocument()
			if task.file != "" {
				read, err := c.readDocument(task.file)
				if err != nil {
					return err
				}
				doc = read
			}
			flags, inner := cmd.Flags(), newDocument()
			for _, set := range task.set {
				if err := set(flags, inner); err != nil {
					return err
				}
			}
			doc.merge("task", inner.values)
			if err := times.set(flags, doc); err != nil {
				return err
			}
			for name, set := range map[string]struct {
				path  string
				value any
			}{
				"overlap": {"overlap", overlap}, "catchup-window": {"catchup_window", window}, "jitter": {"jitter", jitter},
				"note": {"note", note}, "paused": {"paused", paused},
			} {
				if flags.Changed(name) {
					doc.set(set.path, set.value)
				}
			}
			if len(args) > 0 {
				doc.set("name", args[0])
			}
			if len(doc.values) == 0 {
				return usagef("say what is to happen and when, with -f FILE or with a name, --cron or --at, --project, --version and --selector")
			}
			return c.makeSchedule(cmd.Context(), doc)
		},
	}
	task.register(cmd.Flags())
	cmd.Flag("file").Usage = "YAML file with the schedule, its task below task:, or - for the standard input; flags go before what it says"
	times.register(cmd.Flags())
	cmd.Flags().StringVar(&overlap, "overlap", "", "while an earlier rollout is at work: skip, buffer_one or allow (default skip)")
	cmd.Flags().StringVar(&window, "catchup-window", "", "how late it may start after the server was down (default 10m)")
	cmd.Flags().StringVar(&jitter, "jitter", "", "up to that much later, by chance")
	cmd.Flags().StringVar(&note, "note", "", "for people")
	cmd.Flags().BoolVar(&paused, "paused", false, "fires only when triggered, until it is resumed")
	return cmd
}

// scheduleTask makes a schedule of a task, with a name of its own.
func (c *cli) scheduleTask(ctx context.Context, times *timeFlags, flags *pflag.FlagSet, task *document) error {
	doc := newDocument()
	if err := times.set(flags, doc); err != nil {
		return err
	}
	project, _ := task.values["project"].(string)
	if chosen, ok := task.values["project"].(*string); ok {
		project = *chosen
	}
	doc.set("name", strings.Trim(fmt.Sprintf("%.40s-%s", project, time.Now().UTC().Format("20060102-150405")), "-."))
	doc.merge("task", task.values)
	return c.makeSchedule(ctx, doc)
}

func (c *cli) makeSchedule(ctx context.Context, doc *document) error {
	api, err := c.api()
	if err != nil {
		return err
	}
	body, err := doc.body()
	if err != nil {
		return err
	}
	made, err := apiclient.Read[apiclient.Schedule](api.CreateScheduleWithBody(ctx, "application/json", body))
	if err != nil {
		return doc.locate(err)
	}
	words := "schedule " + made.Name + " made"
	if len(made.Next) > 0 {
		words += "; it fires first at " + clock(made.Next[0])
	}
	return c.made(made, words, made.ID)
}

// clock shows a time in its own zone, and by the clock of this machine where that shows another.
func clock(t time.Time) string {
	const form = "Mon 2006-01-02 15:04:05 -0700"
	text := t.Format(form)
	if local := t.Local().Format(form); local != text {
		text += " (here " + local + ")"
	}
	return text
}

// times says when a schedule fires.
func times(s apiclient.Schedule) string {
	if s.Cron == "" {
		return "at " + s.At.Format(time.RFC3339)
	}
	if s.Timezone == "UTC" {
		return s.Cron
	}
	return s.Cron + " " + s.Timezone
}

func (c *cli) scheduleList() *cobra.Command {
	var project string
	cmd := &cobra.Command{Use: "list", Short: "List schedules", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		api, err := c.api()
		if err != nil {
			return err
		}
		found, err := pages(cmd.Context(), 0, func(ctx context.Context, limit, offset int64) ([]apiclient.Schedule, error) {
			answer, err := apiclient.Read[apiclient.ScheduleList](api.ListSchedules(ctx, &apiclient.ListSchedulesParams{
				Project: apiclient.Optional(project), Limit: &limit, Offset: &offset,
			}))
			return answer.Schedules, err
		})
		if err != nil {
			return err
		}
		return list(c, found, []string{"SCHEDULE", "PROJECT", "VERSION", "WHEN", "NEXT", "LAST"}, func(s apiclient.Schedule) []string {
			next, last := "over", ""
			switch {
			case s.Paused:
				next = "paused"
			case len(s.Next) > 0:
				next = s.Next[0].Local().Format("2006-01-02 15:04:05")
			}
			if len(s.Last) > 0 {
				last = fateOf(s.Last[0])
			}
			return []string{s.Name, s.Project, cmp.Or(s.Task.Version, "(uninstall)"), times(s), next, last}
		})
	}}
	cmd.Flags().StringVar(&project, "project", "", "only of this project")
	return cmd
}

// fateOf says what became of a fire.
func fateOf(f apiclient.Fire) string {
	if f.State == "started" {
		return cmp.Or(f.TaskStatus, "started")
	}
	return string(f.State)
}

func (c *cli) scheduleGet() *cobra.Command {
	return &cobra.Command{Use: "get SCHEDULE", Short: "Show a schedule, its next and its latest fires", Args: cobra.ExactArgs(1),
		ValidArgsFunction: c.completeSchedules, RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			s, err := apiclient.Read[apiclient.Schedule](api.GetSchedule(cmd.Context(), args[0]))
			if err != nil {
				return err
			}
			if c.json() {
				return c.writeJSON(s)
			}
			state := "active"
			switch {
			case s.Paused:
				state = "paused"
			case !s.InEffect:
				state = "not in effect yet"
			case len(s.Next) == 0:
				state = "over"
			}
			if s.Note != "" {
				state += ": " + s.Note
			}
			fmt.Fprintf(c.out, "%s: %s %s, %s\n%s; overlap %s, catch-up window %s", printable(s.Name), printable(s.Project),
				printable(cmp.Or(s.Task.Version, "(uninstall)")), printable(state), printable(times(s)), s.Overlap, s.CatchupWindow)
			if s.Jitter != "" && s.Jitter != "0s" {
				fmt.Fprintf(c.out, ", jitter %s", s.Jitter)
			}
			fmt.Fprintln(c.out)
			c.nextFires(s.Next)
			if len(s.Last) > 0 {
				fmt.Fprintln(c.out)
				c.fires(s.Last)
			}
			return nil
		}}
}

func (c *cli) nextFires(next []time.Time) {
	for i, at := range next {
		lead := "next:"
		if i > 0 {
			lead = "     "
		}
		fmt.Fprintln(c.out, lead, clock(at))
	}
}

func (c *cli) fires(fires []apiclient.Fire) {
	rows := make([][]string, 0, len(fires))
	for _, f := range fires {
		rows = append(rows, []string{f.Due.Local().Format("2006-01-02 15:04:05"), fateOf(f), f.TaskID, f.By, f.Reason})
	}
	c.table([]string{"DUE", "STATE", "TASK", "BY", "REASON"}, rows)
}

func (c *cli) scheduleFires() *cobra.Command {
	var state string
	var limit int
	cmd := &cobra.Command{Use: "fires SCHEDULE", Short: "List the fires of a schedule, the latest first", Args: cobra.ExactArgs(1),
		ValidArgsFunction: c.completeSchedules, RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			found, err := pages(cmd.Context(), limit, func(ctx context.Context, limit, offset int64) ([]apiclient.Fire, error) {
				answer, err := apiclient.Read[apiclient.FireList](api.ListFires(ctx, args[0], &apiclient.ListFiresParams{
					State: apiclient.Optional(apiclient.ListFiresParamsState(state)), Limit: &limit, Offset: &offset,
				}))
				return answer.Fires, err
			})
			if err != nil {
				return err
			}
			if c.json() {
				return c.writeJSON(found)
			}
			c.fires(found)
			return nil
		}}
	cmd.Flags().StringVar(&state, "state", "", "only in this state: requested, started, failed, skipped or missed")
	cmd.Flags().IntVar(&limit, "limit", 20, "how many at most; 0 is all")
	return cmd
}

func (c *cli) schedulePreview() *cobra.Command {
	var zone string
	count := 5
	cmd := &cobra.Command{
		Use: "preview CRON", Short: "Show when a schedule would fire", Args: cobra.ExactArgs(1),
		Example: "  quic-ctl schedule preview '0 9 * * mon-fri' --timezone America/New_York",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			found, err := apiclient.Read[apiclient.SchedulePreview](api.PreviewSchedule(cmd.Context(),
				&apiclient.PreviewScheduleParams{Count: new(int64(count))}, apiclient.ScheduleTimes{Cron: args[0], Timezone: zone}))
			if err != nil {
				return err
			}
			if c.json() {
				return c.writeJSON(found)
			}
			c.nextFires(found.Next)
			return nil
		},
	}
	cmd.Flags().StringVar(&zone, "timezone", "", "zone whose clock counts, such as Europe/Berlin (default UTC)")
	cmd.Flags().IntVar(&count, "count", count, "how many fires, 100 at most")
	return cmd
}

func (c *cli) scheduleTrigger() *cobra.Command {
	return &cobra.Command{Use: "trigger SCHEDULE", Short: "Let a schedule fire now", Args: cobra.ExactArgs(1),
		ValidArgsFunction: c.completeSchedules, RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			fire, err := apiclient.Read[apiclient.Fire](api.TriggerSchedule(cmd.Context(), args[0]))
			if err != nil {
				return err
			}
			if c.json() {
				return c.writeJSON(fire)
			}
			fmt.Fprintf(c.out, "schedule %s: triggered; see what comes of it with: quic-ctl schedule get %s\n", printable(args[0]), printable(args[0]))
			return nil
		}}
}

func (c *cli) scheduleDelete() *cobra.Command {
	return &cobra.Command{Use: "delete SCHEDULE", Short: "Delete a schedule; what it started goes on", Args: cobra.ExactArgs(1),
		ValidArgsFunction: c.completeSchedules, RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			if err := apiclient.Done(api.DeleteSchedule(cmd.Context(), args[0])); err != nil {
				return err
			}
			if !c.json() {
				fmt.Fprintf(c.out, "schedule %s: deleted\n", printable(args[0]))
			}
			return nil
		}}
}

// completeSchedules gives the names of schedules.
func (c *cli) completeSchedules(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.complete(func(api *apiclient.API) ([]string, error) {
		page, err := apiclient.Read[apiclient.ScheduleList](api.ListSchedules(cmd.Context(), &apiclient.ListSchedulesParams{Limit: new(int64(pageSize))}))
		names := map[string]bool{}
		for _, s := range page.Schedules {
			names[s.Name] = true
		}
		return slices.Sorted(maps.Keys(names)), err
	}), cobra.ShellCompDirectiveNoFileComp
}
