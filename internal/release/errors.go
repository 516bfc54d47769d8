package release

import (
	"errors"
	"fmt"
)

// Code classifies an Error for whoever has to answer it: an HTTP status, an exit code.
type Code string

// The codes of Error.
const (
	CodeInvalid      Code = "invalid"      // the input is wrong; Field names where
	CodeNotFound     Code = "not_found"    // the thing named does not exist
	CodeConflict     Code = "conflict"     // valid, but not in the present state
	CodeStale        Code = "stale"        // what was to be changed was changed meanwhile
	CodeUnauthorized Code = "unauthorized" // who are you?
	CodeForbidden    Code = "forbidden"    // you may not
	CodeUnavailable  Code = "unavailable"  // try again later; nothing was changed
)

// Error is an error whose message may be shown to a user.
type Error struct {
	Code    Code
	Field   string // path of the offending input, such as "strategy.canary.percent"; empty if none
	Message string // safe to show; says what to do where something can be done
	cause   error
}

// Error gives the field, where there is one, and the message.
func (e *Error) Error() string {
	if e.Field != "" {
		return e.Field + ": " + e.Message
	}
	return e.Message
}

// Unwrap gives the cause, which is for operators and not shown to users.
func (e *Error) Unwrap() error { return e.cause }

// Is reports a match with another *Error of the same Code, so that errors.Is(err, ErrNotFound) works.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Message == "" && t.Field == ""
}

// Sentinels to match with errors.Is.
var (
	ErrInvalid      = &Error{Code: CodeInvalid}
	ErrNotFound     = &Error{Code: CodeNotFound}
	ErrConflict     = &Error{Code: CodeConflict}
	ErrStale        = &Error{Code: CodeStale}
	ErrUnauthorized = &Error{Code: CodeUnauthorized}
	ErrForbidden    = &Error{Code: CodeForbidden}
	ErrUnavailable  = &Error{Code: CodeUnavailable}
)

// Invalid reports wrong input in a field.
func Invalid(field, format string, args ...any) *Error {
	return &Error{Code: CodeInvalid, Field: field, Message: fmt.Sprintf(format, args...)}
}

// NotFound reports that a kind of thing of this name does not exist.
func NotFound(kind, name string) *Error {
	return &Error{Code: CodeNotFound, Message: fmt.Sprintf("%s %q does not exist", kind, name)}
}

// Conflict reports that the request does not fit the present state.
func Conflict(format string, args ...any) *Error {
	return &Error{Code: CodeConflict, Message: fmt.Sprintf(format, args...)}
}

// Stale reports that a thing has another revision than the one that was to be changed.
func Stale(kind, name string, is, want int64) *Error {
	return &Error{Code: CodeStale, Message: fmt.Sprintf("%s %s was changed meanwhile: it has revision %d, and the change was meant for %d; read it again and repeat the change",
		kind, name, is, want)}
}

// Unavailable reports that something needed is not there for the moment. The cause is for operators.
func Unavailable(cause error, format string, args ...any) *Error {
	return &Error{Code: CodeUnavailable, Message: fmt.Sprintf(format, args...), cause: cause}
}

// AsInvalid turns "does not exist" into what is wrong with a field that names it.
func AsInvalid(field string, err error) error {
	var known *Error
	if errors.As(err, &known) && known.Code == CodeNotFound {
		return Invalid(field, "%s", known.Message)
	}
	return err
}

// CodeOf gives the code of the first *Error in err's chain, or "" if there is none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// Under gives an error of a field as one of a field of the part that it belongs to: "version" becomes "task.version".
func Under(part string, err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	moved := *e
	moved.Field = part
	if e.Field != "" {
		moved.Field += "." + e.Field
	}
	return &moved
}
