package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quicflow/quicflow/internal/planning"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// Preview is what a task would do.
type Preview struct {
	Project     string           `json:"project"`
	Version     string           `json:"version,omitempty"`
	Environment string           `json:"environment,omitempty"`
	Action      release.Action   `json:"action" enum:"deploy,uninstall"`
	Config      *release.Merged  `json:"config,omitempty" doc:"As merged, with the layer of each value and its variables in it, but secrets, and what only a host knows, as ${NAME}; left out when the task uninstalls"`
	Values      []PreviewValue   `json:"values" doc:"The configuration as a list, in the order of paths"`
	Problems    []PreviewProblem `json:"problems" doc:"What is wrong with values of the configuration; the task would be refused"`
	Warnings    []string         `json:"warnings" doc:"Why the task would be refused, or do less than it seems"`
	Total       int              `json:"total" doc:"Targets; 0 if none were given"`
	Waves       []PreviewWave    `json:"waves"`
	Groups      []PreviewGroup   `json:"groups" doc:"The targets by what would be done to them"`
}

// PreviewValue is a value of the configuration, and where it came from.
type PreviewValue struct {
	release.ConfigValue
	Variables []release.VariableUse `json:"variables,omitempty" doc:"What it takes from variables"`
}

// PreviewProblem is what is wrong with a value.
type PreviewProblem struct {
	Path    string `json:"path" example:"env.PORT" doc:"Within the type's part of the configuration; empty: of the whole"`
	Message string `json:"message"`
}

// PreviewWave is a wave, and who is in it.
type PreviewWave struct {
	release.Wave
	Sample []string `json:"sample" doc:"The first 20 of its hosts; their order is that of ids"`
	Last   string   `json:"last,omitempty" doc:"The last of its hosts"`
}

// PreviewGroup is the targets to which the same would happen.
type PreviewGroup struct {
	Action  string           `json:"action" enum:"install,update,uninstall,none"`
	From    string           `json:"from,omitempty" doc:"The version that runs there; empty if none does"`
	State   string           `json:"state,omitempty" enum:"installed,failed,unknown," doc:"How far that can be believed"`
	Drift   release.Drift    `json:"drift,omitempty" enum:"version,missing,stopped,degraded,changed," doc:"How what the agents reported last differs from that; left out where it does not"`
	Found   string           `json:"found,omitempty" doc:"The version that they reported, if that is another"`
	Targets int              `json:"targets"`
	Sample  []string         `json:"sample" doc:"Up to five of them"`
	Changes []release.Change `json:"changes" doc:"How the configuration differs from that which runs there"`
}

const (
	sampleSize     = 5
	waveSampleSize = 20
)

func (s *server) registerPreview(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "preview-task", Method: http.MethodPost, Path: "/api/release/preview", Tags: []string{"tasks"}, MaxBodyBytes: MaxTaskBody,
		Summary: "Show what a task would do", Description: "Takes what a task takes; targets may be left out. Nothing is stored or done.",
	}, func(ctx context.Context, in *struct{ Body NewTask }) (*reply[Preview], error) {
		preview, err := s.preview(ctx, in.Body)
		if err != nil {
			return nil, err
		}
		return replyWith(preview), nil
	})
}

func (s *server) preview(ctx context.Context, in NewTask) (Preview, error) {
	o, err := s.planner().Intend(ctx, in, true)
	if err != nil {
		return Preview{}, err
	}
	preview := Preview{
		Project: o.Project.Name, Version: o.Version.Name, Environment: o.Environment.Name, Action: o.Task.Action,
		Values: []PreviewValue{}, Problems: []PreviewProblem{}, Warnings: []string{}, Waves: []PreviewWave{}, Groups: []PreviewGroup{},
	}
	if o.Task.Action == release.ActionDeploy {
		config, err := o.Config("")
		if err != nil && release.CodeOf(err) != release.CodeInvalid {
			return Preview{}, err
		}
		preview.Config, preview.Values = &config, values(&o, &config)
		if problem, ok := errors.AsType[*release.Error](err); ok {
			of, path, _ := strings.Cut(problem.Field, ".")
			if of != string(config.Type) {
				path = ""
			}
			preview.Problems = append(preview.Problems, PreviewProblem{Path: path, Message: problem.Message})
		}
		for _, why := range []error{o.Version.Deployable(), err} {
			if why != nil {
				preview.Warnings = append(preview.Warnings, why.Error())
			}
		}
		preview.Warnings = append(preview.Warnings, config.Warnings()...)
	}
	if targets := o.Task.Targets; len(targets.Clients) == 0 && targets.Selector == "" {
		return preview, nil
	}
	clients, err := s.Store.ResolveTargets(ctx, o.Task.Targets)
	if err != nil {
		return Preview{}, err
	}
	preview.Total = len(clients)
	preview.Waves = previewWaves(clients, o.Task.Strategy)
	if err := s.planner().CheckCapability(ctx, o.Project, clients); err != nil {
		if release.CodeOf(err) != release.CodeInvalid {
			return Preview{}, err
		}
		preview.Warnings = append(preview.Warnings, err.Error())
	}
	preview.Groups, err = s.groups(ctx, &o, preview.Config, clients)
	return preview, err
}

// values lists a configuration with the variables that its values take something from.
func values(o *planning.Intent, config *release.Merged) []PreviewValue {
	merged := config.Values()
	uses := o.VariableUses()
	told := make([]PreviewValue, len(merged))
	for i, v := range merged {
		told[i] = PreviewValue{ConfigValue: v, Variables: uses[v.Path]}
	}
	return told
}

// previewWaves gives the waves as a task that is made now would have them.
func previewWaves(clients []string, strategy release.Strategy) []PreviewWave {
	clients = slices.Compact(slices.Sorted(slices.Values(clients)))
	waves := release.PlanWaves(len(clients), strategy)
	told := make([]PreviewWave, len(waves))
	for i, members := range release.InWaves(clients, waves) {
		told[i] = PreviewWave{Wave: waves[i], Sample: members[:min(len(members), waveSampleSize)]}
		if len(members) > waveSampleSize {
			told[i].Last = members[len(members)-1]
		}
	}
	return told
}

// running tells apart what may run on a host.
type running struct {
	versionID, version, configID string
	state                        release.InstallationState
	drift                        release.Drift
	found, foundConfig           string // by the agent's last report, if drift is that of the version
}

func runningOf(i release.Installation) running {
	r := running{versionID: i.VersionID, version: i.Version, configID: i.ConfigID, state: i.State}
	if i.Running == nil {
		return r
	}
	drift, _ := release.DriftOf(i, *i.Running)
	if drift == release.DriftNone || drift == release.DriftUnknown {
		return r
	}
	r.drift = drift
	if drift == release.DriftVersion {
		r.found, r.foundConfig = i.Running.Version, i.Running.ConfigID
	}
	return r
}

// groups puts the targets together by what runs there now, as far as a task changes it.
func (s *server) groups(ctx context.Context, o *planning.Intent, after *release.Merged, clients []string) ([]PreviewGroup, error) {
	list, _, err := s.Store.Installations(ctx, store.InstallationFilter{Project: o.Project.ID, Clients: clients})
	if err != nil {
		return nil, err
	}
	installed := make(map[string]*release.Installation, len(list))
	for i := range list {
		installed[list[i].ClientID] = &list[i]
	}
	byRunning := map[running]*PreviewGroup{}
	for _, client := range clients {
		there := installed[client]
		if there == nil {
			there = &release.Installation{}
		}
		k := runningOf(*there)
		group := byRunning[k]
		if group == nil {
			group = &PreviewGroup{Action: actionOn(o.Task.Action, *there), From: there.Version, State: string(there.State), Drift: k.drift, Changes: []release.Change{}}
			if k.found != k.version {
				group.Found = k.found
			}
			if after != nil && there.VersionID != "" {
				if group.Changes, err = s.changes(ctx, o, *there, k.foundConfig, *after); err != nil {
					return nil, err
				}
			}
			byRunning[k] = group
		}
		group.Targets++
		if len(group.Sample) < sampleSize {
			group.Sample = append(group.Sample, client)
		}
	}
	return joined(byRunning), nil
}

// joined makes one group of those of which the same is to be told, though their configurations have different ids.
func joined(byRunning map[running]*PreviewGroup) []PreviewGroup {
	groups := make([]PreviewGroup, 0, len(byRunning))
	for _, group := range byRunning {
		groups = append(groups, *group)
	}
	slices.SortFunc(groups, func(a, b PreviewGroup) int { return cmp.Compare(a.Sample[0], b.Sample[0]) })
	byTold := make(map[string]int, len(groups))
	n := 0
	for _, group := range groups {
		told := fmt.Sprintf("%q %q %q %q %q", group.From, group.State, group.Drift, group.Found, group.Changes)
		if at, ok := byTold[told]; ok {
			groups[at].Targets += group.Targets
			sample := append(groups[at].Sample, group.Sample...)
			slices.Sort(sample)
			groups[at].Sample = sample[:min(len(sample), sampleSize)]
			continue
		}
		byTold[told] = n
		groups[n] = group
		n++
	}
	groups = groups[:n]
	slices.SortStableFunc(groups, func(a, b PreviewGroup) int {
		return cmp.Or(cmp.Compare(b.Targets, a.Targets), cmp.Compare(a.From, b.From), cmp.Compare(a.State, b.State), cmp.Compare(a.Drift, b.Drift))
	})
	return groups
}

// changes gives the difference from the configuration that runs on a host: the one that its agent found, if that is another and known,
// else the one that was deployed; of what was deployed before configurations were kept, from that of its version as it is now.
func (s *server) changes(ctx context.Context, o *planning.Intent, there release.Installation, foundConfig string, after release.Merged) ([]release.Change, error) {
	snapshot, err := s.Store.Snapshot(ctx, cmp.Or(foundConfig, there.ConfigID))
	if foundConfig != "" && errors.Is(err, release.ErrNotFound) {
		snapshot, err = s.Store.Snapshot(ctx, there.ConfigID)
	}
	var before release.Merged
	switch {
	case err == nil:
		before, err = snapshot.Merged()
	case errors.Is(err, release.ErrNotFound):
		var version release.Version
		if version, err = s.Store.VersionByID(ctx, there.VersionID); err == nil {
			before = release.Merge(o.Project, version, release.Override{})
			if expanded, unknown := before.Expand(o.Lookup("", version.Name), false); unknown == nil {
				before = expanded
			}
		}
	}
	if err != nil {
		return nil, err
	}
	return list(release.Changes(before, after)), nil
}

func actionOn(action release.Action, there release.Installation) string {
	switch {
	case action == release.ActionUninstall && there.Version == "":
		return "none"
	case action == release.ActionUninstall:
		return string(release.StepUninstall)
	case there.Version == "":
		return string(release.StepInstall)
	}
	return string(release.StepUpdate)
}
