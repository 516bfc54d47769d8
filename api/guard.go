package api

import (
	"context"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// Guarded is what requests that change something have in common.
type Guarded struct {
	IfMatch string `header:"If-Match" doc:"ETag of what is to be changed, as it was read; if it was changed since, the answer is 412. Left out: whatever it is by now"`
	Trial
}

// Trial is for requests that may be tried.
type Trial struct {
	DryRun bool `query:"dry_run" doc:"Check everything and answer as usual, but keep nothing"`
}

func (t Trial) guard() store.Guard { return store.Guard{DryRun: t.DryRun} }

func (g Guarded) guard() (store.Guard, error) {
	guard := g.Trial.guard()
	tag := strings.TrimPrefix(strings.TrimSpace(g.IfMatch), "W/")
	if tag == "" || tag == "*" {
		return guard, nil
	}
	revision, err := strconv.ParseInt(strings.Trim(tag, `"`), 10, 64)
	if err != nil || revision < 1 {
		return guard, release.Invalid("", `the header If-Match is no ETag of this API, such as "3"`)
	}
	guard.Revision = revision
	return guard, nil
}

// guarded is an input with Guarded in it.
type guarded interface {
	guard() (store.Guard, error)
}

// registerChange is register for an operation that changes something under a guard.
func registerChange[I guarded, O any](s *server, api huma.API, op huma.Operation, handle func(context.Context, *I, store.Guard) (*O, error)) {
	register(s, api, op, func(ctx context.Context, in *I) (*O, error) {
		guard, err := (*in).guard()
		if err != nil {
			return nil, err
		}
		return handle(ctx, in, guard)
	})
}

// tagged is an answer with the revision of what it shows.
type tagged[T any] struct {
	ETag string `header:"ETag" doc:"Revision, for If-Match"`
	Body T
}

func tag[T any](body T, revision int64) *tagged[T] { return &tagged[T]{etag(revision), body} }

func etag(revision int64) string { return strconv.Quote(strconv.FormatInt(revision, 10)) }
