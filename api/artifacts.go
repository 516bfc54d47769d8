package api

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/quicflow/quicflow/internal/artifact"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// Artifacts keeps the contents of artifacts. See artifact.Store.
type Artifacts interface {
	MaxBytes() int64
	Put(ctx context.Context, upload artifact.Upload, content io.Reader) (release.StoredArtifact, error)
	Reader(ctx context.Context, sha256 string) (*artifact.Reader, error)
	Delete(ctx context.Context, sha256 string) error
}

var _ Artifacts = (*artifact.Store)(nil)

// transferStall is how long nothing may come of an upload, and how long a download may take nothing.
const transferStall = time.Minute

// ArtifactList is a page of artifacts.
type ArtifactList struct {
	Artifacts []release.StoredArtifact `json:"artifacts"`
	Total     int                      `json:"total" doc:"How many match, on all pages"`
}

// ArtifactPath names an artifact.
type ArtifactPath struct {
	SHA256 string `path:"sha256" pattern:"^[0-9a-f]{64}$" doc:"64 hexadecimal digits, in small letters"`
}

type artifactQuery struct {
	Search string `query:"search" maxLength:"200" doc:"Part of a name, or the beginning of a SHA-256"`
	Unused bool   `query:"unused" doc:"Only those that no version uses"`
	Page
}

// ArtifactUpload is a content that comes.
type ArtifactUpload struct {
	Name   string `query:"name" maxLength:"200" doc:"For people, such as the name of the file"`
	SHA256 string `query:"sha256" pattern:"^[0-9a-f]{64}$" doc:"What the content must have. Another one is refused, and nothing is stored"`

	request *http.Request
	answer  http.ResponseWriter
}

// Resolve implements huma.Resolver: the body is read as it comes, and not before.
func (u *ArtifactUpload) Resolve(ctx huma.Context) []error {
	u.request, u.answer = humachi.Unwrap(ctx)
	return nil
}

func (s *server) registerArtifacts(api huma.API) {
	tags := []string{"artifacts"}
	binary := map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}
	register(s, api, huma.Operation{
		OperationID: "upload-artifact", Method: http.MethodPost, Path: "/api/release/artifacts", Tags: tags,
		Summary: "Upload an artifact",
		Description: "The body is its content. It is stored under its SHA-256, once it has come in full; what was there before under it stays, and takes the new name. " +
			"413: it is larger than artifacts.max_bytes.",
		RequestBody: &huma.RequestBody{Required: true, Content: binary}, DefaultStatus: http.StatusCreated,
	}, s.uploadArtifact)
	register(s, api, huma.Operation{
		OperationID: "list-artifacts", Method: http.MethodGet, Path: "/api/release/artifacts", Tags: tags, Summary: "List artifacts, the newest first",
	}, func(ctx context.Context, in *artifactQuery) (*reply[ArtifactList], error) {
		artifacts, total, err := s.Store.Artifacts(ctx, store.ArtifactFilter{Search: in.Search, Unused: in.Unused, Limit: in.Limit, Offset: in.Offset})
		if err != nil {
			return nil, err
		}
		return replyWith(ArtifactList{Artifacts: list(artifacts), Total: total}), nil
	})
	register(s, api, huma.Operation{
		OperationID: "get-artifact", Method: http.MethodGet, Path: "/api/release/artifacts/{sha256}", Tags: tags, Summary: "Get what is known of an artifact",
	}, func(ctx context.Context, in *ArtifactPath) (*reply[release.StoredArtifact], error) {
		a, err := s.Store.Artifact(ctx, in.SHA256)
		if err != nil {
			return nil, err
		}
		return replyWith(a), nil
	})
	register(s, api, huma.Operation{
		OperationID: "download-artifact", Method: http.MethodGet, Path: "/api/release/artifacts/{sha256}/content", Tags: tags,
		Summary: "Download an artifact", Description: "Ranges are supported.",
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: binary}, "206": {Description: "A range of it", Content: binary}},
	}, s.downloadArtifact)
	register(s, api, huma.Operation{
		OperationID: "delete-artifact", Method: http.MethodDelete, Path: "/api/release/artifacts/{sha256}", Tags: tags,
		Summary: "Delete an artifact", Description: "409: a version uses it.", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, in *ArtifactPath) (*struct{}, error) {
		if err := s.Artifacts.Delete(ctx, in.SHA256); err != nil {
			return nil, err
		}
		s.Logger.InfoContext(ctx, "artifact deleted", "sha256", in.SHA256, "by", principal(ctx))
		return nil, nil
	})
}

func (s *server) uploadArtifact(ctx context.Context, in *ArtifactUpload) (*reply[release.StoredArtifact], error) {
	limit := s.Artifacts.MaxBytes()
	if in.request.ContentLength > limit {
		return nil, tooLarge(&artifact.TooLargeError{Limit: limit})
	}
	body := &slowBody{body: in.request.Body, control: http.NewResponseController(in.answer)}
	a, err := s.Artifacts.Put(ctx, artifact.Upload{Name: in.Name, By: principal(ctx), SHA256: in.SHA256}, body)
	_ = body.control.SetReadDeadline(time.Time{})
	var large *artifact.TooLargeError
	switch {
	case errors.As(err, &large):
		return nil, tooLarge(large)
	case body.err != nil:
		s.Logger.InfoContext(ctx, "upload of an artifact cut off", "name", in.Name, "by", principal(ctx), "cause", body.err)
		return nil, release.Invalid("", "the upload was cut off; nothing is stored")
	case err != nil:
		return nil, err
	}
	s.Logger.InfoContext(ctx, "artifact uploaded", "sha256", a.SHA256, "name", a.Name, "bytes", a.Size, "by", principal(ctx))
	return replyWith(a), nil
}

func tooLarge(err *artifact.TooLargeError) error {
	return huma.NewError(http.StatusRequestEntityTooLarge, err.Error())
}

// slowBody is a body that may take its time, as long as something comes.
type slowBody struct {
	body    io.Reader
	control *http.ResponseController
	err     error // of the reading, but for its end
}

func (b *slowBody) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(transferStall))
	n, err := b.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = fmt.Errorf("read the body: %w", err)
		return n, b.err
	}
	return n, err
}

func (s *server) downloadArtifact(ctx context.Context, in *ArtifactPath) (*streamOutput, error) {
	a, err := s.Store.Artifact(ctx, in.SHA256)
	if err != nil {
		return nil, err
	}
	content, err := s.Artifacts.Reader(ctx, in.SHA256)
	if err != nil {
		return nil, err
	}
	return &streamOutput{Body: func(hctx huma.Context) {
		defer func() { _ = content.Close() }()
		r, w := humachi.Unwrap(hctx)
		h := w.Header()
		h.Set("Content-Type", "application/octet-stream")
		h.Set("ETag", `"`+a.SHA256+`"`)
		if sum, err := hex.DecodeString(a.SHA256); err == nil {
			h.Set("Repr-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(sum)+":")
		}
		if a.Name != "" {
			h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": a.Name}))
		}
		http.ServeContent(slowWriter{w, http.NewResponseController(w)}, r, "", time.Time{}, content)
	}}, nil
}

// slowWriter is for a reader that may take its time, as long as it takes something.
type slowWriter struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (w slowWriter) Write(p []byte) (int, error) {
	_ = w.control.SetWriteDeadline(time.Now().Add(transferStall))
	return w.ResponseWriter.Write(p)
}
