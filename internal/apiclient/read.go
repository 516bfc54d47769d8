package apiclient

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

const maxProblem = 1 << 20

// Problem is an answer of the server other than success.
type Problem struct{ ErrorModel }

// Error gives the detail, or whatever else there is.
func (p *Problem) Error() string {
	if p.Detail != "" {
		return p.Detail
	}
	return strings.ToLower(p.Title)
}

// StatusOf gives the HTTP status of the Problem in err's chain, or 0.
func StatusOf(err error) int {
	var p *Problem
	if errors.As(err, &p) {
		return int(p.Status)
	}
	return 0
}

// Read turns what a method of API gave into a value, or into an error: a *Problem if the server answered with one.
//
//	task, err := apiclient.Read[apiclient.Task](api.GetTask(ctx, id))
func Read[T any](res *http.Response, err error) (value T, _ error) {
	if err := check(res, err); err != nil {
		return value, err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&value); err != nil {
		return value, fmt.Errorf("read answer of %s: %w", res.Request.URL.Host, err)
	}
	return value, nil
}

// Done is Read for answers without a body.
func Done(res *http.Response, err error) error {
	if err := check(res, err); err != nil {
		return err
	}
	return res.Body.Close()
}

// Copy is Read for answers that are text: it passes the body on as it comes.
func Copy(to io.Writer, res *http.Response, err error) error {
	if err := check(res, err); err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(to, res.Body); err != nil {
		return fmt.Errorf("read answer of %s: %w", res.Request.URL.Host, err)
	}
	return nil
}

// check leaves the body open after success, and only then.
func check(res *http.Response, err error) error {
	if failed := (*url.Error)(nil); errors.As(err, &failed) {
		at, _ := url.Parse(failed.URL)
		return fmt.Errorf("server %s://%s does not answer: %w", at.Scheme, at.Host, failed.Err)
	}
	if err != nil {
		return err
	}
	if res.StatusCode < http.StatusMultipleChoices {
		return nil
	}
	defer res.Body.Close()
	problem := &Problem{}
	text, _ := io.ReadAll(io.LimitReader(res.Body, maxProblem))
	if json.Unmarshal(text, &problem.ErrorModel) != nil {
		problem.Detail = res.Request.URL.Host + " answers, but not as a QuicFlow server"
	}
	problem.Status = int64(res.StatusCode)
	if problem.Title == "" {
		problem.Title = http.StatusText(res.StatusCode)
	}
	return problem
}

// Optional gives a parameter that is left out if it is zero.
func Optional[T comparable](value T) *T {
	var zero T
	if value == zero {
		return nil
	}
	return &value
}
