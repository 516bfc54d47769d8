package executor

import "errors"

// Failure is why a step goes back, in a form that can be kept: a later run of its work gives the same answer.
type Failure struct {
	Text      string     `json:"text"`
	Cancelled *Cancelled `json:"cancelled,omitempty"`
	TimedOut  *TimedOut  `json:"timed_out,omitempty"`
	Exit      *ExitError `json:"exit,omitempty"`    // of a script or a program
	Unknown   bool       `json:"unknown,omitempty"` // what became of a script
}

// FailureOf takes down an error of a step's work.
func FailureOf(err error) Failure {
	f := Failure{Text: err.Error(), Unknown: errors.Is(err, ErrUnknown)}
	errors.As(err, &f.Cancelled)
	errors.As(err, &f.TimedOut)
	errors.As(err, &f.Exit)
	return f
}

// Err gives the error again: its text, and what a step's result goes by.
func (f Failure) Err() error {
	var cause error
	switch {
	case f.Unknown:
		cause = ErrUnknown
	case f.Cancelled != nil:
		cause = f.Cancelled
	case f.TimedOut != nil:
		cause = f.TimedOut
	case f.Exit != nil:
		cause = f.Exit
	default:
		return errors.New(f.Text)
	}
	if cause.Error() == f.Text {
		return cause
	}
	return &keptError{f.Text, cause}
}

// keptError is an error of an earlier run.
type keptError struct {
	text  string
	cause error
}

func (e *keptError) Error() string { return e.text }
func (e *keptError) Unwrap() error { return e.cause }
