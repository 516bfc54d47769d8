package api_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/api"
	"github.com/quicflow/quicflow/api/apitest"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

const artifactsPath = "/api/release/artifacts"

// noArtifacts is for an API that is not asked for any.
type noArtifacts struct{ api.Artifacts }

func artifactOf(size int, seed byte) (content []byte, sum string) {
	content = make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(content)
	s := sha256.Sum256(content)
	return content, hex.EncodeToString(s[:])
}

// ask makes a request and gives status, body and head of the answer.
func ask(t *testing.T, r *http.Request) (int, []byte, http.Header) {
	t.Helper()
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, body, res.Header
}

func problemIn(t *testing.T, body []byte) string {
	t.Helper()
	var problem struct{ Detail string }
	require.NoError(t, json.Unmarshal(body, &problem), "%s", body)
	return problem.Detail
}

func TestArtifacts(t *testing.T) {
	t.Parallel()
	s := apitest.Start(t)
	content, sum := artifactOf(3_000_000, 1)
	status, body, _ := ask(t, s.Request("POST", artifactsPath+"?name=app+1.tar.gz&sha256="+sum, bytes.NewReader(content)))
	require.Equal(t, 201, status, "%s", body)
	var a release.StoredArtifact
	require.NoError(t, json.Unmarshal(body, &a))
	require.Equal(t, release.StoredArtifact{SHA256: sum, Size: 3_000_000, Name: "app 1.tar.gz", CreatedBy: apitest.Admin, CreatedAt: a.CreatedAt, LastUsed: a.LastUsed}, a)

	// Of unknown length, and without a name.
	small, smallSum := artifactOf(1000, 2)
	status, body, _ = ask(t, s.Request("POST", artifactsPath, io.MultiReader(bytes.NewReader(small))))
	require.Equal(t, 201, status, "%s", body)

	status, body, _ = ask(t, s.Request("GET", artifactsPath+"?search=APP&unused=true", nil))
	require.Equal(t, 200, status)
	var all api.ArtifactList
	require.NoError(t, json.Unmarshal(body, &all))
	require.Equal(t, 1, all.Total)
	require.Equal(t, sum, all.Artifacts[0].SHA256)
	status, body, _ = ask(t, s.Request("GET", artifactsPath+"/"+sum, nil))
	require.Equal(t, 200, status)
	require.Contains(t, string(body), `"versions":0`)

	status, body, head := ask(t, s.Request("GET", artifactsPath+"/"+sum+"/content", nil))
	require.Equal(t, 200, status)
	require.True(t, bytes.Equal(content, body))
	require.Equal(t, `attachment; filename="app 1.tar.gz"`, head.Get("Content-Disposition"))
	require.Equal(t, "application/octet-stream", head.Get("Content-Type"))
	require.Equal(t, "3000000", head.Get("Content-Length"))
	r := s.Request("GET", artifactsPath+"/"+sum+"/content", nil)
	r.Header.Set("Range", "bytes=2999000-")
	status, body, head = ask(t, r)
	require.Equal(t, 206, status)
	require.True(t, bytes.Equal(content[2999000:], body))
	require.Equal(t, "bytes 2999000-2999999/3000000", head.Get("Content-Range"))
	r.Header.Set("If-None-Match", `"`+sum+`"`)
	status, _, _ = ask(t, r)
	require.Equal(t, 304, status)

	// A version keeps it.
	s.AddVersion("hello", "1.0")
	version := func(name, sum string) string {
		return fmt.Sprintf(`{"version":%q,"script":{"install":"true","artifacts":[{"name":"a","sha256":%q}]}}`, name, sum)
	}
	_, missing := artifactOf(1, 3)
	status, body, _ = ask(t, s.Request("POST", "/api/release/projects/hello/versions", strings.NewReader(version("2.0", missing))))
	require.Equal(t, 422, status)
	require.Contains(t, string(body), "body.script.artifacts[0].sha256")
	require.Contains(t, problemIn(t, body), "was uploaded")
	status, body, _ = ask(t, s.Request("POST", "/api/release/projects/hello/versions", strings.NewReader(version("2.0", sum))))
	require.Equal(t, 201, status, "%s", body)
	status, body, _ = ask(t, s.Request("DELETE", artifactsPath+"/"+sum, nil))
	require.Equal(t, 409, status)
	require.Contains(t, problemIn(t, body), "version 2.0 of hello needs it")
	status, _, _ = ask(t, s.Request("DELETE", artifactsPath+"/"+smallSum, nil))
	require.Equal(t, 204, status)
	for _, path := range []string{"", "/content"} {
		status, _, _ = ask(t, s.Request("GET", artifactsPath+"/"+smallSum+path, nil))
		require.Equal(t, 404, status)
	}
}

func TestArtifactsThatAreRefused(t *testing.T) {
	t.Parallel()
	s := apitest.Start(t)
	content, sum := artifactOf(1000, 1)
	_, other := artifactOf(1, 2)
	status, body, _ := ask(t, s.Request("POST", artifactsPath+"?sha256="+other, bytes.NewReader(content)))
	require.Equal(t, 422, status)
	require.Contains(t, problemIn(t, body), sum)
	for _, path := range []string{"?sha256=abc", "?nam=x", "?name=" + strings.Repeat("x", 201)} {
		status, _, _ = ask(t, s.Request("POST", artifactsPath+path, bytes.NewReader(content)))
		require.Equal(t, 422, status, path)
	}
	for _, path := range []string{"/abc", "/..%2f..%2fetc%2fpasswd", "/" + strings.ToUpper(sum) + "/content"} {
		status, _, _ = ask(t, s.Request("GET", artifactsPath+path, nil))
		require.Contains(t, []int{404, 422}, status, path)
	}
	r := s.Request("POST", artifactsPath, bytes.NewReader(content))
	r.Header.Del("Authorization")
	status, _, _ = ask(t, r)
	require.Equal(t, 401, status)

	// Too large, as its length says, and as it turns out.
	large := make([]byte, apitest.MaxArtifact+1)
	for _, body := range []io.Reader{bytes.NewReader(large), io.MultiReader(bytes.NewReader(large))} {
		status, answer, _ := ask(t, s.Request("POST", artifactsPath, body))
		require.Equal(t, 413, status)
		require.Contains(t, problemIn(t, answer), "artifacts.max_bytes")
	}
	requireNoArtifacts(t, s)
}

func requireNoArtifacts(t *testing.T, s *apitest.Server) {
	t.Helper()
	_, total, err := s.Store.Artifacts(t.Context(), store.ArtifactFilter{})
	require.NoError(t, err)
	require.Zero(t, total)
}

// An upload whose connection breaks stores nothing.
func TestArtifactUploadThatBreaks(t *testing.T) {
	t.Parallel()
	s := apitest.Start(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
	require.NoError(t, err)
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 1000\r\n\r\nonly this", artifactsPath, s.Token)
	require.NoError(t, err)
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(30*time.Second)))
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	require.Contains(t, string(answer), "cut off")
	requireNoArtifacts(t, s)
}
