package api

import (
	"context"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"

	"github.com/quicflow/quicflow/internal/release"
)

// Limits of request bodies, in bytes. A larger one is answered 413.
const (
	MaxBody     = 1 << 20
	MaxTaskBody = 16 << 20 // a task may list release.MaxTargets clients
)

// Spec gives the OpenAPI document. It needs no running server.
func Spec() *huma.OpenAPI {
	api := humachi.New(chi.NewRouter(), humaConfig("1"))
	(&server{}).register(api)
	return api.OpenAPI()
}

func init() {
	huma.DefaultArrayNullable = false // a list of this API is never null; huma has no other place to say so
}

func humaConfig(version string) huma.Config {
	config := huma.DefaultConfig("QuicFlow", version)
	config.Info.Description = "Release orchestration: versions of projects, rolled out to hosts as tasks."
	config.CreateHooks = nil // no $schema in answers
	config.DocsPath = ""     // its pages load scripts from elsewhere
	config.SchemasPath = ""
	config.RejectUnknownQueryParameters = true
	config.Transformers = []huma.Transformer{clarifyProblem}
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token":   {Type: "http", Scheme: "bearer", Description: "An API token: Authorization: Bearer qfa_…"},
		"session": {Type: "apiKey", In: "cookie", Name: sessionCookie, Description: "What POST /login gives to a browser"},
	}
	config.Security = []map[string][]string{{"token": {}}, {"session": {}}}

	schemas := config.Components.Schemas
	schemas.RegisterTypeAlias(reflect.TypeFor[release.Duration](), reflect.TypeFor[durationText]())
	schemas.RegisterTypeAlias(reflect.TypeFor[release.Limit](), reflect.TypeFor[limitText]())
	return config
}

// durationText describes release.Duration, so that a wrong one is found with its place.
type durationText struct{}

// Schema implements huma.SchemaProvider.
func (durationText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type:               huma.TypeString,
		Pattern:            `^(0|([0-9]{1,9}(\.[0-9]{1,9})?(ns|us|µs|ms|s|m|h)){1,6})$`,
		PatternDescription: "a duration such as 30s, 5m or 1h30m",
		Examples:           []any{"1m30s"},
	}
}

// limitText describes release.Limit.
type limitText struct{}

// Schema implements huma.SchemaProvider.
func (limitText) Schema(huma.Registry) *huma.Schema {
	zero := 0.0
	return &huma.Schema{
		OneOf: []*huma.Schema{
			{Type: huma.TypeString, Pattern: `^([0-9]{1,9}|(100(\.0{1,9})?|[0-9]{1,2}(\.[0-9]{1,9})?)%)$`},
			{Type: huma.TypeInteger, Minimum: &zero},
		},
		Examples:   []any{"10%"},
		Extensions: map[string]any{"x-go-type": "string"}, // answers always have the text
	}
}

// reply is an operation's answer with a JSON body.
type reply[T any] struct{ Body T }

func replyWith[T any](body T) *reply[T] { return &reply[T]{Body: body} }

// Page is what lists have in common. It is exported, as the other parts of inputs, because huma reads no others.
type Page struct {
	Limit  int `query:"limit" default:"100" minimum:"1" maximum:"1000" doc:"How many at most"`
	Offset int `query:"offset" default:"0" minimum:"0" doc:"How many to pass over"`
}

// register adds an operation whose errors become problems that a user may see.
func register[I, O any](s *server, api huma.API, op huma.Operation, handle func(context.Context, *I) (*O, error)) {
	if op.MaxBodyBytes == 0 {
		op.MaxBodyBytes = MaxBody
	}
	place := "query"
	if op.Method == http.MethodPost || op.Method == http.MethodPatch || op.Method == http.MethodPut {
		place = "body"
	}
	huma.Register(api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handle(ctx, in)
		if err != nil {
			return nil, s.problem(ctx, op.OperationID, place, err)
		}
		return out, nil
	})
}

// list gives a list that is written as [] when it is empty.
func list[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}
