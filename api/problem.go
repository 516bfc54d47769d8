package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"

	"github.com/quicflow/quicflow/internal/release"
)

const retryAfterSeconds = "5"

var statusOf = map[release.Code]int{
	release.CodeInvalid:      http.StatusUnprocessableEntity,
	release.CodeNotFound:     http.StatusNotFound,
	release.CodeConflict:     http.StatusConflict,
	release.CodeStale:        http.StatusPreconditionFailed,
	release.CodeUnauthorized: http.StatusUnauthorized,
	release.CodeForbidden:    http.StatusForbidden,
	release.CodeUnavailable:  http.StatusServiceUnavailable,
}

// problem turns an error into what a user may see (RFC 9457). The causes of the others go to the log.
// place is where the field of a release.Error is: "body" or "query".
func (s *server) problem(ctx context.Context, operation, place string, err error) error {
	var known *release.Error
	var told huma.StatusError
	if errors.As(err, &told) {
		return told // the operation knows best
	}
	if !errors.As(err, &known) {
		if ctx.Err() != nil {
			return huma.NewError(http.StatusServiceUnavailable, "the request was given up")
		}
		s.Logger.ErrorContext(ctx, "request failed", "operation", operation, "error", err)
		return huma.NewError(http.StatusInternalServerError, "something went wrong in the server; its log says what")
	}
	status, ok := statusOf[known.Code]
	if !ok {
		status = http.StatusInternalServerError
	}
	var details []error
	if known.Field != "" {
		details = append(details, &huma.ErrorDetail{Location: place + "." + known.Field, Message: known.Message})
	}
	problem := error(huma.NewError(status, known.Error(), details...))
	if status == http.StatusServiceUnavailable {
		s.Logger.WarnContext(ctx, "request refused for now", "operation", operation, "error", known.Message, "cause", errors.Unwrap(known))
		problem = huma.ErrorWithHeaders(problem, http.Header{"Retry-After": {retryAfterSeconds}})
	}
	return problem
}

// clarifyProblem is a huma.Transformer. It makes the errors of the validation name their field and does not send back
// what came in, which may hold secrets.
func clarifyProblem(_ huma.Context, _ string, v any) (any, error) {
	problem, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	for _, detail := range problem.Errors {
		if detail == nil {
			continue
		}
		detail.Value = nil
		var missing string
		if n, _ := fmt.Sscanf(detail.Message, validation.MsgExpectedRequiredProperty, &missing); n == 1 {
			detail.Location += "." + missing
			detail.Message = "is required"
		}
		if values, ok := strings.CutSuffix(detail.Message, `, "`); ok { // a list of which the empty text is one
			detail.Message = values + `"`
		}
		switch detail.Message {
		case validation.MsgUnexpectedProperty:
			detail.Message = "unknown key"
		case validation.MsgExpectedMatchExactlyOneSchema: // a limit is the only such value of this API
			detail.Message = "expected a count such as 3 or a share between 0% and 100% such as 10%"
		}
	}
	if problem.Detail == "validation failed" && len(problem.Errors) > 0 {
		problem.Detail = summary(problem.Errors)
	}
	return problem, nil
}

// summary says in one line what is wrong.
func summary(details []*huma.ErrorDetail) string {
	first := details[0]
	line := first.Message
	if _, field, nested := strings.Cut(first.Location, "."); nested {
		line = field + ": " + line
	}
	if more := len(details) - 1; more > 0 {
		line += fmt.Sprintf(" (and %d more)", more)
	}
	return line
}

// writeProblem answers outside of an operation.
func writeProblem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(huma.ErrorModel{Title: http.StatusText(status), Status: status, Detail: detail})
}
