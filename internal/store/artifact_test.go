package store_test

import (
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

func sumOf(digit string) string { return strings.Repeat(digit, 64) }

// upload notes an artifact whose sum is made of one digit.
func (f *fixture) upload(digit, name string) release.StoredArtifact {
	f.Helper()
	a := release.StoredArtifact{SHA256: sumOf(digit), Size: 7, Name: name, CreatedBy: "me"}
	require.NoError(f, f.PutArtifact(f.ctx(), &a))
	return a
}

// versionWith makes a version with uploaded artifacts.
func (f *fixture) versionWith(name string, digits ...string) error {
	spec := &release.ScriptSpec{Install: "true"}
	for _, digit := range digits {
		spec.Artifacts = append(spec.Artifacts, release.Artifact{Name: "a", SHA256: sumOf(digit)})
	}
	return f.CreateVersion(f.ctx(), &release.Version{Project: "shop", Name: name, Spec: release.Spec{Script: spec}})
}

var artifactTests = map[string]func(*fixture){
	"artifacts": func(f *fixture) {
		a := f.upload("a", "app_1%.tar")
		require.Equal(f, release.StoredArtifact{SHA256: sumOf("a"), Size: 7, Name: "app_1%.tar", CreatedBy: "me", CreatedAt: f.now(), LastUsed: f.now()}, a)
		began := f.now()
		f.advance(time.Minute)
		again := release.StoredArtifact{SHA256: sumOf("a"), Size: 7, CreatedBy: "you"}
		require.NoError(f, f.PutArtifact(f.ctx(), &again))
		require.Equal(f, a.Name, again.Name, "an empty name changes nothing")
		require.Equal(f, "me", again.CreatedBy)
		require.Equal(f, began, again.CreatedAt)
		require.Equal(f, f.now(), again.LastUsed)
		b := f.upload("b", "Other.zip")

		got, err := f.Artifact(f.ctx(), sumOf("b"))
		require.NoError(f, err)
		require.Empty(f, cmp.Diff(b, got))
		_, err = f.Artifact(f.ctx(), sumOf("c"))
		require.ErrorIs(f, err, release.ErrNotFound)

		for search, want := range map[string]string{"": "ba", "OTHER": "b", "_1%": "a", "%": "a", "aaa": "a", "other_": "", sumOf("b"): "b"} {
			found, total, err := f.Artifacts(f.ctx(), store.ArtifactFilter{Search: search})
			require.NoError(f, err)
			sums := ""
			for _, x := range found {
				sums += x.SHA256[:1]
			}
			require.Equal(f, want, sums, search)
			require.Len(f, found, total)
		}
		page, total, err := f.Artifacts(f.ctx(), store.ArtifactFilter{Limit: 1, Offset: 1})
		require.NoError(f, err)
		require.Equal(f, 2, total)
		require.Equal(f, sumOf("a"), page[0].SHA256)

		known, err := f.KnownArtifacts(f.ctx(), []string{sumOf("a"), sumOf("c")})
		require.NoError(f, err)
		require.Equal(f, map[string]bool{sumOf("a"): true}, known)
		require.NoError(f, f.DeleteArtifact(f.ctx(), sumOf("a")))
		require.ErrorIs(f, f.DeleteArtifact(f.ctx(), sumOf("a")), release.ErrNotFound)
	},
	"artifacts of versions": func(f *fixture) {
		f.project("shop")
		err := f.versionWith("1.0", "a")
		require.ErrorIs(f, err, release.ErrInvalid)
		require.ErrorContains(f, err, "script.artifacts[0].sha256")
		require.ErrorContains(f, err, "quic-ctl artifact upload")
		_, err = f.Version(f.ctx(), "shop", "1.0")
		require.ErrorIs(f, err, release.ErrNotFound, "nothing was made")

		f.upload("a", "")
		f.upload("b", "")
		f.advance(time.Hour)
		require.NoError(f, f.versionWith("1.0", "a", "A", "a"), "one that is named twice, in whatever letters")
		require.NoError(f, f.versionWith("1.1", "a"))
		require.NoError(f, f.CreateVersion(f.ctx(), &release.Version{Project: "shop", Name: "2.0", Spec: release.Spec{Script: &release.ScriptSpec{
			Artifacts: []release.Artifact{{Name: "x", SHA256: sumOf("d"), URL: "https://example.com/x"}}}}}), "a URL needs no upload")
		a, err := f.Artifact(f.ctx(), sumOf("a"))
		require.NoError(f, err)
		require.Equal(f, 2, a.Versions)
		require.Equal(f, f.now(), a.LastUsed)

		err = f.DeleteArtifact(f.ctx(), sumOf("a"))
		require.ErrorIs(f, err, release.ErrConflict)
		require.ErrorContains(f, err, "of shop and 1 more needs it")
		unused, _, err := f.Artifacts(f.ctx(), store.ArtifactFilter{Unused: true})
		require.NoError(f, err)
		require.Len(f, unused, 1)
		require.Equal(f, sumOf("b"), unused[0].SHA256)
	},
	"retention of artifacts": func(f *fixture) {
		f.project("shop")
		for _, digit := range []string{"a", "b", "c", "d"} {
			f.upload(digit, "")
		}
		require.NoError(f, f.versionWith("1.0", "a"))
		f.advance(time.Hour)
		since := f.now()
		f.upload("b", "")
		f.advance(time.Hour)
		require.NoError(f, f.UseArtifact(f.ctx(), sumOf("c")))
		require.NoError(f, f.UseArtifact(f.ctx(), sumOf("f")))
		unused, err := f.UnusedArtifacts(f.ctx(), since)
		require.NoError(f, err)
		require.Equal(f, []string{sumOf("d")}, unused)
		for digit, want := range map[string]bool{"a": false, "b": false, "c": false, "d": true, "f": false} {
			deleted, err := f.DeleteUnusedArtifact(f.ctx(), sumOf(digit), since)
			require.NoError(f, err)
			require.Equal(f, want, deleted, digit)
		}
	},
	// Whoever comes first: never is there a version whose artifact has gone.
	"artifacts and versions at a time": func(f *fixture) {
		f.project("shop")
		for round := range 20 {
			digit := string("0123456789abcdef"[round%16])
			f.upload(digit, "")
			var group sync.WaitGroup
			var made, deleted error
			group.Go(func() { made = f.versionWith("1."+string(rune('a'+round)), digit) })
			group.Go(func() { deleted = f.DeleteArtifact(f.ctx(), sumOf(digit)) })
			group.Wait()
			if made == nil {
				require.ErrorIs(f, deleted, release.ErrConflict)
			} else {
				require.ErrorIs(f, made, release.ErrInvalid)
				require.True(f, deleted == nil || errors.Is(deleted, release.ErrConflict) && round >= 16, "%v", deleted)
			}
		}
	},
}
