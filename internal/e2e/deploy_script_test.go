package e2e

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
)

// scriptKind is a site whose files are uploaded, and come to the host over the agent's connection.
func scriptKind(t *testing.T) kind {
	files := map[string]string{}
	sums := map[string]string{}
	for _, version := range []string{"v1", "v2", "v3"} {
		files[version], sums[version] = archiveOf(t, version)
	}
	site := filepath.Join(t.TempDir(), "site")
	current := filepath.Join(site, "current")
	index := filepath.Join(current, "index.html")
	of := func(version string) object {
		return object{
			"artifacts": []object{{"name": "site.tar.gz", "sha256": sums[version], "unpack": "tar.gz", "strip": 1}},
			"install":   "sleep 1", // long enough to be seen at work
		}
	}
	broken := of("v3")
	broken["health"] = object{"exec": "echo no such page; exit 1", "interval": "50ms", "retries": 2}
	return kind{
		name: "script", files: []string{files["v1"], files["v2"], files["v3"]},
		project: object{
			"work_dir": site, "keep_releases": 2, "pre_script": "test -s index.html",
			"health": object{"exec": "test -s " + index, "interval": "50ms", "retries": 2},
		},
		version: of, broken: broken, why: "no such page",
		serves: func() string {
			text, _ := os.ReadFile(index)
			return strings.TrimSpace(string(text))
		},
		harm: func() {
			require.NoError(t, os.Remove(current))
			require.NoError(t, os.Symlink("releases/elsewhere", current))
		},
		drift: release.DriftChanged,
		broke: release.DriftDegraded, // nobody knows what a script did before it failed
		left: func() (names []string) {
			entries, _ := os.ReadDir(site)
			for _, e := range entries {
				names = append(names, e.Name())
			}
			return names
		},
		lines: map[string][]string{
			"update":   {"script.release.switched"}, // to a release that is kept
			"broken":   {"script.release.filled", "script.release.built", "script.release.switched"},
			"rollback": {"script.release.switched"},
		},
	}
}

// archiveOf makes an archive with an index.html that says which version it is, and gives its SHA-256.
func archiveOf(t *testing.T, version string) (file, sum string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "site-"+version+".tar.gz")
	f, err := os.Create(file)
	require.NoError(t, err)
	zipped := gzip.NewWriter(f)
	w := tar.NewWriter(zipped)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "site/index.html", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(version))}))
	_, err = w.Write([]byte(version))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.NoError(t, zipped.Close())
	require.NoError(t, f.Close())
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	digest := sha256.Sum256(text)
	return file, hex.EncodeToString(digest[:])
}

func TestDeployScript(t *testing.T) {
	t.Parallel()
	testDeploy(t, scriptKind(t))
}

func TestDeployScriptKilled(t *testing.T) {
	t.Parallel()
	testDeployKilled(t, scriptKind(t))
}
