package web

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

func TestFilesAndPages(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	h := Handler(fstest.MapFS{
		"index.html": file("page"), ".gitkeep": file("keep"), "favicon.svg": file("icon"),
		"assets/a-1.js": file("script"), "assets/a-1.js.gz": file("zipped"), "assets/b-2.css": file("style"),
	})
	for _, test := range []struct {
		path, accept string
		status       int
		body, kind   string
		cache        string
		coding       string
	}{
		{"/", "", 200, "page", "text/html; charset=utf-8", "no-cache", ""},
		{"/releases/1?tab=log", "gzip", 200, "page", "text/html; charset=utf-8", "no-cache", ""},
		{"/.gitkeep", "", 200, "page", "text/html; charset=utf-8", "no-cache", ""},
		{"/assets", "", 200, "page", "text/html; charset=utf-8", "no-cache", ""},
		{"/../../etc/passwd", "", 200, "page", "text/html; charset=utf-8", "no-cache", ""},
		{"/favicon.svg", "gzip", 200, "icon", "image/svg+xml", "no-cache", ""},
		{"/assets/a-1.js", "", 200, "script", "text/javascript; charset=utf-8", "public, max-age=31536000, immutable", ""},
		{"/assets/a-1.js", "br, gzip;q=0.5", 200, "zipped", "text/javascript; charset=utf-8", "public, max-age=31536000, immutable", "gzip"},
		{"/assets/a-1.js", "gzip;q=0", 200, "script", "text/javascript; charset=utf-8", "public, max-age=31536000, immutable", ""},
		{"/assets/b-2.css", "gzip", 200, "style", "text/css; charset=utf-8", "public, max-age=31536000, immutable", ""},
		{"/assets/a-1.js.gz", "gzip", 404, "404 page not found\n", "text/plain; charset=utf-8", "", ""},
		{"/assets/gone-9.js", "gzip", 404, "404 page not found\n", "text/plain; charset=utf-8", "", ""},
	} {
		r := httptest.NewRequest(http.MethodGet, "http://console"+test.path, nil)
		r.Header.Set("Accept-Encoding", test.accept)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, test.status, w.Code, test.path)
		require.Equal(t, test.body, w.Body.String(), test.path)
		require.Equal(t, test.kind, w.Header().Get("Content-Type"), test.path)
		require.Equal(t, test.cache, w.Header().Get("Cache-Control"), test.path)
		require.Equal(t, test.coding, w.Header().Get("Content-Encoding"), test.path)
		if test.status == 200 {
			require.NotContains(t, w.Header().Get("Content-Security-Policy"), "unsafe")
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodHead, "http://console/assets/a-1.js", nil))
	require.Empty(t, w.Body.String())
	require.Equal(t, "6", w.Header().Get("Content-Length"))
}
