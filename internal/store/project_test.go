package store_test

import (
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

var projectTests = map[string]func(*fixture){
	"projects": func(f *fixture) {
		p := release.Project{Name: "shop", Description: "a\x00b", Type: release.TypeScript, Spec: release.Spec{Script: &release.ScriptSpec{
			Env: map[string]string{"A": "1\x00"}, Timeout: release.Duration(time.Minute), Health: &release.Health{HTTP: "http://localhost/"}}}}
		require.NoError(f, f.CreateProject(f.ctx(), &p))
		require.NotEmpty(f, p.ID)
		require.Equal(f, f.now(), p.CreatedAt)
		p.Description = "a\uFFFDb"
		for _, ref := range []string{"shop", p.ID} {
			got, err := f.Project(f.ctx(), ref)
			require.NoError(f, err)
			require.Empty(f, cmp.Diff(p, got))
		}
		err := f.CreateProject(f.ctx(), &release.Project{Name: "shop", Type: release.TypeScript})
		require.ErrorIs(f, err, release.ErrConflict)
		_, err = f.Project(f.ctx(), "other")
		require.ErrorIs(f, err, release.ErrNotFound)
		require.NoError(f, f.CreateProject(f.ctx(), &release.Project{Name: "Zoo", Type: release.TypeScript}))
		require.NoError(f, f.CreateProject(f.ctx(), &release.Project{Name: "a-shop", Type: release.TypeScript}))
		all, total, err := f.Projects(f.ctx(), store.ProjectFilter{})
		require.NoError(f, err)
		require.Len(f, all, 3)
		require.Equal(f, 3, total)
		require.Equal(f, "Zoo a-shop shop", all[0].Name+" "+all[1].Name+" "+all[2].Name, "in the order of bytes on both databases")
	},
	"versions": func(f *fixture) {
		f.project("shop")
		v := release.Version{Project: "shop", Name: "1.0", Status: release.VersionDraft, Spec: release.Spec{Script: &release.ScriptSpec{Install: "echo hi"}}}
		require.NoError(f, f.CreateVersion(f.ctx(), &v))
		require.NotEmpty(f, v.ProjectID)
		for _, ref := range []string{"1.0", v.ID} {
			got, err := f.Version(f.ctx(), "shop", ref)
			require.NoError(f, err)
			require.Empty(f, cmp.Diff(v, got))
		}
		require.ErrorIs(f, f.CreateVersion(f.ctx(), &release.Version{Project: "shop", Name: "1.0"}), release.ErrConflict)
		require.ErrorIs(f, f.CreateVersion(f.ctx(), &release.Version{Project: "none", Name: "1.0"}), release.ErrNotFound)

		f.advance(time.Second)
		active, err := f.SetVersionStatus(f.ctx(), v.ID, release.VersionActive)
		require.NoError(f, err)
		v.Status, v.Revision, v.UpdatedAt = release.VersionActive, 2, f.now()
		require.Empty(f, cmp.Diff(v, active))
		_, err = f.SetVersionStatus(f.ctx(), v.ID, "fancy")
		require.ErrorIs(f, err, release.ErrInvalid)
		_, err = f.SetVersionStatus(f.ctx(), "none", release.VersionActive)
		require.ErrorIs(f, err, release.ErrNotFound)

		f.project("other", "1.0")
		_, err = f.Version(f.ctx(), "other", v.ID)
		require.ErrorIs(f, err, release.ErrNotFound)
		_, err = f.Version(f.ctx(), "none", "1.0")
		require.ErrorIs(f, err, release.ErrNotFound)
		_, err = f.VersionByID(f.ctx(), "none")
		require.ErrorIs(f, err, release.ErrNotFound)
		got, err := f.VersionByID(f.ctx(), v.ID)
		require.NoError(f, err)
		require.Empty(f, cmp.Diff(v, got))

		newer := release.Version{Project: "shop", Name: "2.0"}
		require.NoError(f, f.CreateVersion(f.ctx(), &newer))
		all, _, err := f.Versions(f.ctx(), "shop", store.VersionFilter{})
		require.NoError(f, err)
		require.Equal(f, "2.0 1.0", all[0].Name+" "+all[1].Name)
	},
}
