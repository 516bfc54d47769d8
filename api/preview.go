package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// Preview is what a task would do.
type Preview struct {
	Project  string                `json:"project"`
	Version  string                `json:"version,omitempty"`
	Action   release.Action        `json:"action" enum:"deploy,uninstall"`
	Config   *release.Merged       `json:"config,omitempty" doc:"As merged, with the layer of each value; left out when the task uninstalls"`
	Values   []release.ConfigValue `json:"values" doc:"The configuration as a list, in the order of paths"`
	Warnings []string              `json:"warnings" doc:"Why the task would be refused, or do less than it seems"`
	Total    int                   `json:"total" doc:"Targets; 0 if none were given"`
	Waves    []release.Wave        `json:"waves"`
	Groups   []PreviewGroup        `json:"groups" doc:"The targets by what would be done to them"`
}

// PreviewGroup is the targets to which the same would happen.
type PreviewGroup struct {
	Action  string           `json:"action" enum:"install,update,uninstall,none"`
	From    string           `json:"from,omitempty" doc:"The version that runs there; empty if none does"`
	State   string           `json:"state,omitempty" enum:"installed,failed,unknown," doc:"How far that can be believed"`
	Targets int              `json:"targets"`
	Sample  []string         `json:"sample" doc:"Up to five of them"`
	Changes []release.Change `json:"changes" doc:"How the configuration differs from what runs there, as its version and project are now"`
}

const sampleSize = 5

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
	hasTargets := len(in.Targets.Clients) > 0 || in.Targets.Selector != ""
	task := in.Task()
	if !hasTargets {
		task.Targets.Selector = "*" // for the validation only
	}
	if err := task.Validate(); err != nil {
		return Preview{}, err
	}
	project, version, err := s.planner().Resolve(ctx, in)
	if err != nil {
		return Preview{}, err
	}
	if err := task.ValidateFor(project.Type); err != nil {
		return Preview{}, err
	}
	preview := Preview{
		Project: project.Name, Version: version.Name, Action: task.Action,
		Values: []release.ConfigValue{}, Warnings: []string{}, Waves: []release.Wave{}, Groups: []PreviewGroup{},
	}
	if task.Action == release.ActionDeploy {
		config := release.Merge(project, version, in.Override)
		preview.Config, preview.Values = &config, list(config.Values())
		if err := version.Deployable(); err != nil {
			preview.Warnings = append(preview.Warnings, err.Error())
		}
	}
	if !hasTargets {
		return preview, nil
	}
	clients, err := s.Store.ResolveTargets(ctx, task.Targets)
	if err != nil {
		return Preview{}, err
	}
	preview.Total = len(clients)
	preview.Waves = list(release.PlanWaves(len(clients), task.Strategy))
	preview.Groups, err = s.groups(ctx, project, task.Action, preview.Config, clients)
	return preview, err
}

// groups puts the targets together by what runs there now.
func (s *server) groups(ctx context.Context, project release.Project, action release.Action, after *release.Merged, clients []string) ([]PreviewGroup, error) {
	installed, err := s.installed(ctx, project.ID)
	if err != nil {
		return nil, err
	}
	type kind struct {
		versionID, version string
		state              release.InstallationState
	}
	byKind := map[kind]*PreviewGroup{}
	for _, client := range clients {
		there := installed[client]
		k := kind{there.VersionID, there.Version, there.State}
		group := byKind[k]
		if group == nil {
			group = &PreviewGroup{Action: actionOn(action, there), From: there.Version, State: string(there.State), Changes: []release.Change{}}
			if after != nil && there.VersionID != "" {
				before, err := s.Store.VersionByID(ctx, there.VersionID)
				if err != nil {
					return nil, err
				}
				group.Changes = list(release.Changes(release.Merge(project, before, release.Override{}), *after))
			}
			byKind[k] = group
		}
		group.Targets++
		if len(group.Sample) < sampleSize {
			group.Sample = append(group.Sample, client)
		}
	}
	groups := make([]PreviewGroup, 0, len(byKind))
	for _, group := range byKind {
		groups = append(groups, *group)
	}
	slices.SortFunc(groups, func(a, b PreviewGroup) int {
		return cmp.Or(cmp.Compare(b.Targets, a.Targets), cmp.Compare(a.From, b.From), cmp.Compare(a.State, b.State))
	})
	return groups, nil
}

func (s *server) installed(ctx context.Context, projectID string) (map[string]release.Installation, error) {
	const pageSize = 1000
	installed := map[string]release.Installation{}
	for offset := 0; ; offset += pageSize {
		some, _, err := s.Store.Installations(ctx, store.InstallationFilter{Project: projectID, Limit: pageSize, Offset: offset})
		if err != nil {
			return nil, err
		}
		for _, i := range some {
			installed[i.ClientID] = i
		}
		if len(some) < pageSize {
			return installed, nil
		}
	}
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
