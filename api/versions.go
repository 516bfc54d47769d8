package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quicflow/quicflow/internal/release"
)

// NewVersion is a version to be made.
type NewVersion struct {
	Name   string                `json:"version" doc:"Unique within its project"`
	Status release.VersionStatus `json:"status,omitempty" enum:"draft,active,deprecated" default:"draft" doc:"Only active versions are deployed"`
	release.Spec
}

// VersionChange changes a version.
type VersionChange struct {
	Status release.VersionStatus `json:"status" enum:"draft,active,deprecated"`
}

// VersionList is all versions of a project.
type VersionList struct {
	Versions []release.Version `json:"versions"`
}

// VersionPath names a version.
type VersionPath struct {
	ID string `path:"version_id"`
}

func (s *server) registerVersions(api huma.API) {
	tags := []string{"versions"}
	register(s, api, huma.Operation{
		OperationID: "create-version", Method: http.MethodPost, Path: "/api/release/projects/{project}/versions", Tags: tags,
		Summary: "Make a version", DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, in *struct {
		ProjectPath
		Body NewVersion
	}) (*reply[release.Version], error) {
		project, err := s.Store.Project(ctx, in.Ref)
		if err != nil {
			return nil, err
		}
		v := release.Version{
			ProjectID: project.ID, Project: project.Name, Name: in.Body.Name, Status: in.Body.Status, Spec: in.Body.Spec,
		}
		if err := v.ValidateFor(project.Type); err != nil {
			return nil, err
		}
		if err := s.Store.CreateVersion(ctx, &v); err != nil {
			return nil, err
		}
		return replyWith(v), nil
	})
	register(s, api, huma.Operation{
		OperationID: "list-versions", Method: http.MethodGet, Path: "/api/release/projects/{project}/versions", Tags: tags,
		Summary: "List the versions of a project",
	}, func(ctx context.Context, in *ProjectPath) (*reply[VersionList], error) {
		project, err := s.Store.Project(ctx, in.Ref)
		if err != nil {
			return nil, err
		}
		versions, err := s.Store.Versions(ctx, project.ID)
		if err != nil {
			return nil, err
		}
		return replyWith(VersionList{Versions: list(versions)}), nil
	})
	register(s, api, huma.Operation{
		OperationID: "get-version", Method: http.MethodGet, Path: "/api/release/versions/{version_id}", Tags: tags, Summary: "Get a version",
	}, func(ctx context.Context, in *VersionPath) (*reply[release.Version], error) {
		v, err := s.Store.VersionByID(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		return replyWith(v), nil
	})
	register(s, api, huma.Operation{
		OperationID: "change-version", Method: http.MethodPatch, Path: "/api/release/versions/{version_id}", Tags: tags,
		Summary: "Change the status of a version",
	}, func(ctx context.Context, in *struct {
		VersionPath
		Body VersionChange
	}) (*reply[release.Version], error) {
		v, err := s.Store.SetVersionStatus(ctx, in.ID, in.Body.Status)
		if err != nil {
			return nil, err
		}
		return replyWith(v), nil
	})
}
