// Package web is the console: a page in a browser, which uses the API as anybody may.
//
// `make web` builds it into dist, which is embedded in whatever imports this package. A build without it works, and says so
// where the console would be.
package web

import (
	"bytes"
	"embed"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
)

//go:embed all:dist
var built embed.FS

// policy is the console's Content-Security-Policy. There are no inline scripts and no inline styles, in elements or in
// attributes; Vue and Element Plus set styles by way of the CSSOM, which a policy does not restrict. Text becomes HTML by one
// way only, Vue's own policy of trusted types, which it uses for the fixed parts of its templates.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types vue"

const index = "index.html"

// hashed are the files whose names change with their content.
const hashed = "assets/"

// Console gives the handler of what was embedded, and false if the console was not built.
func Console() (http.Handler, bool) {
	dist, err := fs.Sub(built, "dist")
	if err != nil {
		panic(err) // the directory is embedded
	}
	if _, err := fs.Stat(dist, index); err != nil {
		return nil, false
	}
	return Handler(dist), true
}

// Handler serves a console that was built: files by their path, its first page for every other path. A file beside which one
// with the suffix .gz lies is sent so to whom takes it.
func Handler(dist fs.FS) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
		if !servable(dist, name) {
			if strings.HasPrefix(name, hashed) {
				http.NotFound(w, r) // of another build: a page would be taken for the script
				return
			}
			name = index
		}
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("Vary", "Accept-Encoding")
		h.Set("Content-Type", contentType(name))
		h.Set("Cache-Control", "no-cache")
		if strings.HasPrefix(name, hashed) {
			h.Set("Cache-Control", "public, max-age=31536000, immutable")
		}
		body, err := fs.ReadFile(dist, name)
		if zipped, zipErr := fs.ReadFile(dist, name+".gz"); zipErr == nil && takesGzip(r) {
			h.Set("Content-Encoding", "gzip")
			body = zipped
		}
		if err != nil {
			http.Error(w, "the console cannot be read", http.StatusInternalServerError)
			return
		}
		h.Set("Content-Length", strconv.Itoa(len(body)))
		if r.Method != http.MethodHead {
			_, _ = bytes.NewReader(body).WriteTo(w)
		}
	})
}

// servable says whether a name is that of a file that is for browsers.
func servable(dist fs.FS, name string) bool {
	if name == "" || strings.HasSuffix(name, ".gz") || strings.HasPrefix(path.Base(name), ".") || !fs.ValidPath(name) {
		return false
	}
	info, err := fs.Stat(dist, name)
	return err == nil && info.Mode().IsRegular()
}

// takesGzip reads Accept-Encoding as far as browsers write it.
func takesGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		coding, weight, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.EqualFold(strings.TrimSpace(coding), "gzip") && strings.ReplaceAll(weight, " ", "") != "q=0" {
			return true
		}
	}
	return false
}

// contentType does not ask the system's tables, which may say anything.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".json":
		return "application/json"
	case ".woff2":
		return "font/woff2"
	case ".png":
		return "image/png"
	}
	return "application/octet-stream"
}
