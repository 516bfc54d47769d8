package executor_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/executor"
)

// What is kept of an error gives the same answer in a later run.
func TestFailureComesBack(t *testing.T) {
	t.Parallel()
	kept := func(err error) error {
		text, wrong := json.Marshal(executor.FailureOf(err))
		require.NoError(t, wrong)
		var f executor.Failure
		require.NoError(t, json.Unmarshal(text, &f))
		return f.Err()
	}
	for _, err := range []error{
		&executor.Cancelled{Reason: "enough"}, &executor.TimedOut{After: time.Minute}, executor.ErrUnknown,
		&executor.ExitError{Name: "post_script", Code: 3, Line: "oops"}, errors.New("unhealthy"),
	} {
		require.Equal(t, err, kept(err))
		wrapped := kept(fmt.Errorf("on the way: %w", err))
		require.EqualError(t, wrapped, "on the way: "+err.Error())
		switch err.(type) { //nolint:errorlint // these are not wrapped
		case *executor.Cancelled:
			require.ErrorAs(t, wrapped, new(*executor.Cancelled))
		case *executor.TimedOut:
			require.ErrorAs(t, wrapped, new(*executor.TimedOut))
		case *executor.ExitError:
			var exit *executor.ExitError
			require.ErrorAs(t, wrapped, &exit)
			require.Equal(t, err, exit)
		}
		require.Equal(t, errors.Is(err, executor.ErrUnknown), errors.Is(wrapped, executor.ErrUnknown))
	}
}
