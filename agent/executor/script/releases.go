package script

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/unpack"
	"github.com/quicflow/quicflow/internal/durable"
	"github.com/quicflow/quicflow/internal/failpoint"
	"github.com/quicflow/quicflow/internal/release"
)

// What a version with artifacts has in its work directory.
//
//	releases/VERSION       what the artifacts hold; it appears as a whole
//	releases/.VERSION.id   names the artifacts that it was made of, and says if a step with it has succeeded; its time is that of its
//	                       last use
//	releases/.new-…        one that is being made
//	releases/.old-…        one that is being removed
//	current                a link to the one that is in use, which is switched in one step
const (
	releasesDir = "releases"
	currentLink = "current"
	newPrefix   = ".new-"
	oldPrefix   = ".old-"
	idSuffix    = ".id"
)

// defaultMode is that of a file that an artifact is.
const defaultMode = 0o644

func checkArtifacts(step *executor.Step) error {
	for i, a := range step.Config.Script.Artifacts {
		field := fmt.Sprintf("script.artifacts[%d]", i)
		raw, err := hex.DecodeString(a.SHA256)
		switch {
		case a.Name == "" || a.Name == "." || !filepath.IsLocal(a.Name) || strings.ContainsAny(a.Name, "\x00\\") || path.Clean(a.Name) != a.Name:
			return release.Invalid(field+".name", "%q is not the name of a file", a.Name)
		case err != nil || len(raw) != sha256.Size:
			return release.Invalid(field+".sha256", "%q is not a SHA-256", a.SHA256)
		case a.Unpack != "" && !slices.Contains(unpack.Formats, a.Unpack):
			return release.Invalid(field+".unpack", "%q is not an archive format; they are %s", a.Unpack, strings.Join(unpack.Formats, ", "))
		case a.Strip < 0 || a.Strip > 0 && a.Unpack == "":
			return release.Invalid(field+".strip", "it is for archives that are unpacked")
		}
		if _, err := fileMode(a); err != nil {
			return release.Invalid(field+".mode", "%q is not an octal mode such as 0755", a.Mode)
		}
	}
	version := step.Version
	if step.Action == release.StepUninstall {
		version = step.Previous
	}
	if len(step.Config.Script.Artifacts) > 0 && (version == "" && step.Action != release.StepUninstall || strings.HasPrefix(version, ".") || strings.ContainsAny(version, "/\\\x00")) {
		return release.Invalid("version", "%q cannot be the name of a release directory", version)
	}
	return nil
}

func fileMode(a release.Artifact) (os.FileMode, error) {
	if a.Mode == "" {
		return defaultMode, nil
	}
	mode, err := strconv.ParseUint(a.Mode, 8, 12)
	if err != nil || mode > 0o777 {
		return 0, errors.New("no mode")
	}
	return os.FileMode(mode), nil
}

// contentID names what the version's artifacts hold, wherever they come from: a URL that was signed anew brings nothing new.
func contentID(artifacts []release.Artifact) string {
	artifacts = slices.Clone(artifacts)
	for i := range artifacts {
		artifacts[i].URL = ""
	}
	text, err := json.Marshal(artifacts)
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// complete ends the id of a release that a step has succeeded with. Another one may be half changed by its scripts.
const complete = " complete"

// releaseOf gives the path of the version's release directory, and whether it is there to be used. Where that of the version's name
// has another content, it is beside it: a release that may be in use never changes.
func releaseOf(step *executor.Step) (dir string, there bool) {
	id := contentID(step.Config.Script.Artifacts)
	dir = filepath.Join(workDir(step), releasesDir, step.Version)
	if has, exists := releaseID(dir); exists && strings.TrimSuffix(has, complete) != id {
		dir += "-" + id[:8]
	}
	has, exists := releaseID(dir)
	if !exists || has == "" {
		return dir, false
	}
	target, _ := os.Readlink(filepath.Join(workDir(step), currentLink))
	return dir, has == id+complete || target == filepath.Join(releasesDir, filepath.Base(dir))
}

// releaseID gives the id of a release directory, empty if it has none, and whether it exists.
func releaseID(dir string) (id string, exists bool) {
	if _, err := os.Lstat(dir); err != nil {
		return "", false
	}
	text, _ := os.ReadFile(idFile(dir))
	return string(text), true
}

func idFile(dir string) string {
	return filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+idSuffix)
}

// Artifacts are those of a version whose release directory is not there yet.
func (Worker) Artifacts(step *executor.Step) []release.Artifact {
	spec := step.Config.Script
	if spec == nil || step.Action == release.StepUninstall || len(spec.Artifacts) == 0 {
		return nil
	}
	if _, there := releaseOf(step); there {
		return nil
	}
	return spec.Artifacts
}

// kept is what a step with artifacts keeps for another run of its work.
type kept struct {
	Release  string `json:"release"`
	Built    bool   `json:"built"`    // by this step
	Previous string `json:"previous"` // what current led to, empty if it was not there
}

const keptName = "release"

func (j *job) current() string { return filepath.Join(j.workDir, currentLink) }

// prepareRelease makes the release directory, unless it is there.
func (j *job) prepareRelease(ctx context.Context) (k kept, err error) {
	found, err := j.Tools.Kept(keptName, &k)
	if err != nil {
		return k, err
	}
	if !found {
		there := false
		k.Release, there = releaseOf(j.Step)
		k.Built = !there
		if k.Built {
			// What an earlier step left half done is not to be taken for this one's.
			if err := removeRelease(k.Release); err != nil {
				return k, err
			}
		}
		if k.Previous, err = readLink(j.current()); err != nil {
			return k, err
		}
		if err := j.Tools.Keep(keptName, k); err != nil {
			return k, err
		}
	}
	j.env[varReleaseDir] = k.Release
	if _, err := os.Lstat(k.Release); err == nil {
		if !k.Built {
			j.Tools.Printf("release %s is here already", filepath.Base(k.Release))
		}
		return k, nil
	}
	if err := j.build(ctx, k.Release); err != nil {
		return k, err
	}
	failpoint.Here("script.release.built")
	return k, nil
}

// readLink gives what a link leads to, empty if it is not there. Anything else in its place is in the way.
func readLink(link string) (string, error) {
	target, err := os.Readlink(link)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", nil
	case err != nil:
		if info, wrong := os.Lstat(link); wrong == nil && info.Mode().Type() != os.ModeSymlink {
			return "", fmt.Errorf("%s is in the way: it is no link", link)
		}
		return "", err
	}
	return target, nil
}

// build makes a release directory as a whole, or not at all.
func (j *job) build(ctx context.Context, dir string) error {
	releases := filepath.Dir(dir)
	if err := j.makeWorkDir(releases); err != nil {
		return err
	}
	removeStrays(releases)
	part := filepath.Join(releases, newPrefix+filepath.Base(dir))
	if err := os.Mkdir(part, 0o755); err != nil {
		return fmt.Errorf("make the release directory: %w", err)
	}
	err := j.fill(ctx, part)
	if err == nil {
		err = syncTree(part)
	}
	if err == nil {
		err = durable.WriteFile(idFile(dir), []byte(contentID(j.spec.Artifacts)), 0o644)
	}
	failpoint.Here("script.release.filled")
	if err == nil {
		err = os.Rename(part, dir)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(part))
	}
	j.Tools.Printf("release %s is in place", filepath.Base(dir))
	return durable.SyncDir(releases)
}

// makeWorkDir makes the work directory for its user if it is missing, and the directory of releases for the agent alone.
func (j *job) makeWorkDir(releases string) error {
	if _, err := os.Stat(j.workDir); errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(j.workDir, 0o755); err != nil {
			return fmt.Errorf("make the work directory: %w", err)
		}
		if j.user != nil {
			if err := os.Chown(j.workDir, int(j.user.UID), int(j.user.GID)); err != nil {
				return fmt.Errorf("make the work directory: %w", err)
			}
		}
	}
	if err := os.Mkdir(releases, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make the releases' directory: %w", err)
	}
	if info, err := os.Lstat(releases); err != nil || !info.IsDir() {
		return errors.Join(err, fmt.Errorf("%s is in the way: it is no directory", releases))
	}
	return nil
}

// removeStrays removes what an earlier step did not finish to make, or to remove.
func removeStrays(releases string) {
	entries, _ := os.ReadDir(releases)
	for _, entry := range entries {
		// ..VERSION.id.… is an id that was being written.
		if strings.HasPrefix(entry.Name(), newPrefix) || strings.HasPrefix(entry.Name(), oldPrefix) || strings.HasPrefix(entry.Name(), "..") {
			_ = os.RemoveAll(filepath.Join(releases, entry.Name()))
		}
	}
}

// fill lays the artifacts out.
func (j *job) fill(ctx context.Context, dir string) error {
	u, err := unpack.New(dir)
	if err != nil {
		return err
	}
	defer u.Close()
	for _, a := range j.spec.Artifacts {
		file, err := j.Tools.Artifact(ctx, a.SHA256)
		if err != nil {
			return err
		}
		if a.Unpack == "" {
			mode, wrong := fileMode(a)
			if wrong != nil {
				return wrong
			}
			err = u.File(ctx, file, a.Name, mode)
		} else {
			err = u.Archive(ctx, file, a.Unpack, a.Strip)
		}
		if cause := context.Cause(ctx); err != nil && cause != nil {
			return cause
		}
		if err != nil {
			return fmt.Errorf("artifact %s: %w", a.Name, err)
		}
	}
	if j.user == nil {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(j.user.UID), int(j.user.GID))
	})
}

// switchTo makes current lead to a target, in one step; an empty one removes it.
func (j *job) switchTo(target string) error {
	link := j.current()
	if target == "" {
		if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return durable.SyncDir(j.workDir)
	}
	part := filepath.Join(j.workDir, "."+currentLink+newPrefix)
	if err := os.Remove(part); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, part); err != nil {
		return err
	}
	if err := os.Rename(part, link); err != nil {
		return err
	}
	return durable.SyncDir(j.workDir)
}

// deployRelease runs the scripts in the release directory. current leads there after the main script, and before post_script and the
// health check; if one of these fails, it leads back.
func (j *job) deployRelease(ctx context.Context, main string) error {
	k, err := j.prepareRelease(ctx)
	if err == nil {
		err = j.script(ctx, "pre_script", j.spec.PreScript, k.Release)
	}
	if err == nil {
		j.begun = true
		err = j.script(ctx, executor.MainScript, main, k.Release)
	}
	if err == nil {
		err = j.finishRelease(ctx, k)
	}
	if err == nil || errors.Is(err, executor.ErrUnknown) {
		return err // what a script that may be half done needs is left where it is
	}
	return errors.Join(err, j.goBack(k))
}

func (j *job) finishRelease(ctx context.Context, k kept) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	target := filepath.Join(releasesDir, filepath.Base(k.Release))
	if now, err := readLink(j.current()); err != nil || now != target {
		if err := errors.Join(err, j.switchTo(target)); err != nil {
			return fmt.Errorf("switch to the release: %w", err)
		}
		j.Tools.Printf("%s leads to %s", currentLink, target)
	}
	failpoint.Here("script.release.switched")
	if err := j.script(ctx, "post_script", j.spec.PostScript, k.Release); err != nil {
		return err
	}
	if err := j.Tools.Health(ctx, j.env); err != nil {
		return err
	}
	if err := durable.WriteFile(idFile(k.Release), []byte(contentID(j.spec.Artifacts)+complete), 0o644); err != nil {
		return err
	}
	j.prune(k)
	return nil
}

// goBack makes current lead to where it did before, and removes the release if this step made it.
func (j *job) goBack(k kept) error {
	if k.Release == "" {
		return nil
	}
	now, err := readLink(j.current())
	if err != nil || now != k.Previous {
		if err != nil {
			return nil // it is what failed
		}
		if err := j.switchTo(k.Previous); err != nil {
			return fmt.Errorf("%s could not be switched back: %w", currentLink, err)
		}
		if k.Previous == "" {
			j.Tools.Printf("%s is removed again", currentLink)
		} else {
			j.Tools.Printf("%s leads back to %s", currentLink, k.Previous)
		}
	}
	if k.Built {
		return removeRelease(k.Release)
	}
	return nil
}

// removeRelease lets a release go at once, and its files after that.
func removeRelease(dir string) error {
	old := filepath.Join(filepath.Dir(dir), oldPrefix+filepath.Base(dir))
	if err := os.Rename(dir, old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove release: %w", err)
	}
	return errors.Join(os.RemoveAll(old), ignoreMissing(os.Remove(idFile(dir))))
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// prune removes the releases that were not used for longest, but never the one in use, nor the one before it.
func (j *job) prune(k kept) {
	releases := filepath.Dir(k.Release)
	removeStrays(releases)
	entries, err := os.ReadDir(releases)
	if err != nil {
		return
	}
	type candidate struct {
		dir  string
		used time.Time
	}
	var others []candidate
	keep := max(j.spec.KeepReleases, 1)
	for _, entry := range entries {
		dir := filepath.Join(releases, entry.Name())
		info, err := os.Stat(idFile(dir))
		switch {
		case err != nil || !entry.IsDir(): // not ours
		case dir == k.Release || filepath.Join(releasesDir, entry.Name()) == k.Previous:
			keep--
		default:
			others = append(others, candidate{dir, info.ModTime()})
		}
	}
	slices.SortFunc(others, func(a, b candidate) int { return b.used.Compare(a.used) })
	for _, c := range others[min(max(keep, 0), len(others)):] {
		if err := removeRelease(c.dir); err != nil {
			j.Tools.Printf("release %s could not be removed: %v", filepath.Base(c.dir), err)
			continue
		}
		j.Tools.Printf("release %s is removed: %d are kept", filepath.Base(c.dir), j.spec.KeepReleases)
	}
}

// uninstallReleases removes current, where it is ours, and all releases of all work directories that the project had.
func uninstallReleases(dirs []string) error {
	for _, dir := range dirs {
		link, releases := filepath.Join(dir, currentLink), filepath.Join(dir, releasesDir)
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, releasesDir+"/") {
			if err := os.Remove(link); err != nil {
				return fmt.Errorf("remove %s: %w", link, err)
			}
		}
		removeStrays(releases)
		entries, err := os.ReadDir(releases)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("remove releases: %w", err)
		}
		for _, entry := range entries {
			name, ok := strings.CutSuffix(entry.Name(), idSuffix)
			if version, dotted := strings.CutPrefix(name, "."); ok && dotted {
				if err := removeRelease(filepath.Join(releases, version)); err != nil {
					return err
				}
			}
		}
		_ = os.Remove(releases) // unless someone else put something there
	}
	return nil
}
