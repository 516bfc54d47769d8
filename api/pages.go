package api

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
)

//go:embed pages
var pageFiles embed.FS

// pages are the few that the API itself shows. They have no scripts, and their style is allowed by its hash alone.
type pages struct {
	templates *template.Template
	style     template.CSS
	policy    string
}

type loginView struct {
	Next    string
	Problem string
}

type homeView struct {
	User     string
	Temporal bool
}

// loadPages prepares them. A login may lead on to the UI of an external Temporal, which the policy must allow by name.
func loadPages(temporalUIURL string) pages {
	style, err := pageFiles.ReadFile("pages/style.css")
	if err != nil {
		panic(err) // it is embedded
	}
	hash := sha256.Sum256(style)
	actions := "'self'"
	if u, err := url.Parse(temporalUIURL); err == nil && u.Host != "" {
		actions += " " + u.Scheme + "://" + u.Host
	}
	return pages{
		templates: template.Must(template.ParseFS(pageFiles, "pages/*.html")),
		style:     template.CSS(style),
		policy: "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action " + actions +
			"; style-src 'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'",
	}
}

func (p pages) login(w http.ResponseWriter, status int, view loginView) {
	p.show(w, status, "login.html", view)
}

func (p pages) show(w http.ResponseWriter, status int, name string, view any) {
	var page bytes.Buffer
	if err := p.templates.ExecuteTemplate(&page, name, map[string]any{"Style": p.style, "View": view}); err != nil {
		writeProblem(w, http.StatusInternalServerError, "the page could not be made")
		return
	}
	w.Header().Set("Content-Security-Policy", p.policy)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(page.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(page.Bytes())
}

// home lists where to go from here.
func (s *server) home(w http.ResponseWriter, r *http.Request) {
	s.pages.show(w, http.StatusOK, "home.html", homeView{
		User:     principal(r.Context()),
		Temporal: s.TemporalUI != nil || s.TemporalUIURL != "",
	})
}
