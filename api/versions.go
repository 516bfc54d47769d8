package api

import (
	"cmp"
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// NewVersion is a version to be made.
type NewVersion struct {
	Name   string                `json:"version" doc:"Unique within its project"`
	Status release.VersionStatus `json:"status,omitempty" enum:"draft,active,deprecated" default:"draft" doc:"Only active versions are deployed"`
	release.Spec
}

// VersionContent replaces what a version says.
type VersionContent struct {
	Name   string                `json:"version,omitempty" doc:"Left out: it keeps its name"`
	Status release.VersionStatus `json:"status,omitempty" enum:"draft,active,deprecated," doc:"Left out: it stays"`
	release.Spec
}

// VersionChange changes a version.
type VersionChange struct {
	Status release.VersionStatus `json:"status" enum:"draft,active,deprecated"`
}

// VersionList is a page of the versions of a project.
type VersionList struct {
	Versions []release.Version `json:"versions"`
	Total    int               `json:"total" doc:"How many match, on all pages"`
}

// VersionPath names a version.
type VersionPath struct {
	ID string `path:"version_id"`
}

type versionQuery struct {
	ProjectPath
	Name   string `query:"name" doc:"Exactly this version"`
	Search string `query:"search" doc:"A part of the name"`
	Status string `query:"status" enum:"draft,active,deprecated"`
	Page
}

func (s *server) registerVersions(api huma.API) {
	tags := []string{"versions"}
	register(s, api, huma.Operation{
		OperationID: "create-version", Method: http.MethodPost, Path: "/api/release/projects/{project}/versions", Tags: tags,
		Summary: "Make a version", DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, in *struct {
		ProjectPath
		Trial
		Body NewVersion
	}) (*tagged[release.Version], error) {
		project, err := s.Store.Project(ctx, in.Ref)
		if err != nil {
			return nil, err
		}
		v := release.Version{
			ProjectID: project.ID, Project: project.Name, Name: in.Body.Name, Status: in.Body.Status, Spec: in.Body.Spec,
		}
		if err := checkVersion(project, &v); err != nil {
			return nil, err
		}
		if err := s.changed(in.Trial, s.Store.CreateVersion(ctx, &v, in.guard())); err != nil {
			return nil, err
		}
		return tag(v, v.Revision), nil
	})
	register(s, api, huma.Operation{
		OperationID: "list-versions", Method: http.MethodGet, Path: "/api/release/projects/{project}/versions", Tags: tags,
		Summary: "List the versions of a project, the newest first",
	}, func(ctx context.Context, in *versionQuery) (*reply[VersionList], error) {
		versions, total, err := s.Store.Versions(ctx, in.Ref, store.VersionFilter{
			Name: in.Name, Search: in.Search, Status: release.VersionStatus(in.Status), Limit: in.Limit, Offset: in.Offset,
		})
		if err != nil {
			return nil, err
		}
		return replyWith(VersionList{Versions: list(versions), Total: total}), nil
	})
	register(s, api, huma.Operation{
		OperationID: "get-version", Method: http.MethodGet, Path: "/api/release/versions/{version_id}", Tags: tags, Summary: "Get a version",
	}, func(ctx context.Context, in *VersionPath) (*tagged[release.Version], error) {
		v, err := s.Store.VersionByID(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		return tag(v, v.Revision), nil
	})
	registerChange(s, api, huma.Operation{
		OperationID: "update-version", Method: http.MethodPut, Path: "/api/release/versions/{version_id}", Tags: tags, Summary: "Replace what a version says",
		Description: "What is left out is removed, but for the name and the status. What changes nothing leaves the revision. " +
			"Answers 409 if it was ever deployed and more than its status would change.",
	}, func(ctx context.Context, in *struct {
		VersionPath
		Guarded
		Body VersionContent
	}, guard store.Guard) (*tagged[release.Version], error) {
		v, err := s.Store.VersionByID(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		project, err := s.Store.Project(ctx, v.ProjectID)
		if err != nil {
			return nil, err
		}
		v.Name, v.Status, v.Spec = cmp.Or(in.Body.Name, v.Name), cmp.Or(in.Body.Status, v.Status), in.Body.Spec
		if err := checkVersion(project, &v); err != nil {
			return nil, err
		}
		v.Name, v.Status = in.Body.Name, in.Body.Status // left out, they may have become others meanwhile
		if err := s.changed(in.Trial, s.Store.UpdateVersion(ctx, &v, guard)); err != nil {
			return nil, err
		}
		return tag(v, v.Revision), nil
	})
	registerChange(s, api, huma.Operation{
		OperationID: "change-version", Method: http.MethodPatch, Path: "/api/release/versions/{version_id}", Tags: tags,
		Summary: "Change the status of a version",
	}, func(ctx context.Context, in *struct {
		VersionPath
		Guarded
		Body VersionChange
	}, guard store.Guard) (*tagged[release.Version], error) {
		v, err := s.Store.SetVersionStatus(ctx, in.ID, in.Body.Status, guard)
		if err = s.changed(in.Trial, err); err != nil {
			return nil, err
		}
		return tag(v, v.Revision), nil
	})
	registerChange(s, api, huma.Operation{
		OperationID: "delete-version", Method: http.MethodDelete, Path: "/api/release/versions/{version_id}", Tags: tags, Summary: "Delete a version",
		Description: "Answers 409 while it is in use. The history of its tasks stays; its name is free again.",
	}, func(ctx context.Context, in *struct {
		VersionPath
		Guarded
	}, guard store.Guard) (*struct{}, error) {
		return nil, s.changed(in.Trial, s.Store.DeleteVersion(ctx, in.ID, guard))
	})
}

// checkVersion checks a version, by itself and with its project.
func checkVersion(project release.Project, v *release.Version) error {
	if err := v.ValidateFor(project.Type); err != nil {
		return err
	}
	if err := checkYAML(v.Kubernetes); err != nil {
		return err
	}
	merged := release.Merge(project, *v, release.Override{})
	return merged.Validate()
}
