package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/quicflow/quicflow/api/apitest"
	"github.com/quicflow/quicflow/internal/apiclient"
)

func TestArtifactFromUploadToDeletion(t *testing.T) {
	s := apitest.Start(t)
	content := make([]byte, 1_000_000)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content)
	path := filepath.Join(t.TempDir(), "shop.tar.gz")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	h := sha256.Sum256(content)
	sum := hex.EncodeToString(h[:])

	r := quicCtl(t, s, "artifact", "upload", path)
	require.Zero(t, r.code, r.err)
	require.Equal(t, sum+"\n", r.out[:65])
	require.NotContains(t, r.err, "\x1b")
	var spec struct {
		Script struct {
			Artifacts []map[string]string
		}
	}
	require.NoError(t, yaml.Unmarshal([]byte(r.out[65:]), &spec))
	require.Equal(t, []map[string]string{{"name": "shop.tar.gz", "sha256": sum, "unpack": "tar.gz"}}, spec.Script.Artifacts)

	// What was printed makes a version.
	r = quicCtl(t, s, "project", "create", "-f", file(t, "name: hello\n"))
	require.Zero(t, r.code, r.err)
	version := func(name, text string) result {
		return quicCtl(t, s, "version", "create", "-f", file(t, "project: hello\nversion: \""+name+"\"\n"+text))
	}
	missing := version("0.9", artifactYAML("app", hex.EncodeToString(make([]byte, 32))))
	require.Equal(t, exitError, missing.code)
	require.Contains(t, missing.err, "quic-ctl artifact upload FILE")
	r = version("1.0", artifactYAML("shop.tar.gz", sum))
	require.Zero(t, r.code, r.err)

	r = quicCtl(t, s, "artifact", "upload", path)
	require.Zero(t, r.code, r.err)
	require.Contains(t, r.err, "has it already")
	r = quicCtl(t, s, "artifact", "list")
	require.Contains(t, r.out, "shop.tar.gz   976.6 KiB   1 ")
	r = quicCtl(t, s, "artifact", "list", "--unused", "-o", "json")
	require.Equal(t, "[]\n", r.out)

	to := filepath.Join(t.TempDir(), "copy")
	for _, ref := range []string{sum, sum[:8], "shop.tar.gz"} {
		r = quicCtl(t, s, "artifact", "download", ref, to)
		require.Zero(t, r.code, r.err)
		got, err := os.ReadFile(to)
		require.NoError(t, err)
		require.True(t, bytes.Equal(content, got))
		require.NoError(t, os.Remove(to))
	}
	left, err := os.ReadDir(filepath.Dir(to))
	require.NoError(t, err)
	require.Empty(t, left)
	r = quicCtl(t, s, "artifact", "download", sum, "-")
	require.True(t, r.out == string(content))
	r = quicCtl(t, s, "artifact", "download", "nothing")
	require.Equal(t, exitError, r.code)
	require.Contains(t, r.err, `there is no artifact "nothing"`)

	r = quicCtl(t, s, "artifact", "delete", sum)
	require.Equal(t, exitError, r.code)
	require.Contains(t, r.err, "version 1.0 of hello needs it")
	other := file(t, "another")
	r = quicCtl(t, s, "artifact", "upload", other, "--name", "notes", "-o", "json")
	var a apiclient.StoredArtifact
	require.NoError(t, json.Unmarshal([]byte(r.out), &a))
	require.Equal(t, "notes", a.Name)
	r = quicCtl(t, s, "artifact", "delete", "notes")
	require.Zero(t, r.code, r.err)
	require.Equal(t, a.Sha256+" deleted\n", r.out)
}

func TestArtifactUploadThatCannotBe(t *testing.T) {
	s := apitest.Start(t)
	r := quicCtl(t, s, "artifact", "upload", filepath.Join(t.TempDir(), "nothing"))
	require.Equal(t, exitError, r.code)
	r = quicCtl(t, s, "artifact", "upload", t.TempDir())
	require.Equal(t, exitError, r.code)
	require.Contains(t, r.err, "is not a file")
	large := filepath.Join(t.TempDir(), "large")
	require.NoError(t, os.WriteFile(large, make([]byte, apitest.MaxArtifact+1), 0o600))
	r = quicCtl(t, s, "artifact", "upload", large)
	require.Equal(t, exitError, r.code)
	require.Contains(t, r.err, "artifacts.max_bytes")
}

func TestMeter(t *testing.T) {
	began := time.Now()
	m := &meter{what: "uploading", total: 1 << 30, done: 1 << 29, began: began}
	require.Equal(t, "uploading ████████████░░░░░░░░░░░░ 50% of 1.0 GiB, 256.0 MiB/s", m.line(began.Add(2*time.Second)))
	require.Equal(t, "1023 B", byteCount(1023))
	require.Equal(t, "1.0 KiB", byteCount(1024))
	require.Equal(t, "2048.0 TiB", byteCount(2<<50))
}
