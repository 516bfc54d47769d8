package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/quicflow/quicflow/internal/release"
)

// keyID is the id of what a caller makes with an idempotency key; empty without one. namespace tells kinds of things apart.
func keyID(namespace uuid.UUID, by, key string) string {
	if key == "" {
		return ""
	}
	return uuid.NewSHA1(namespace, fmt.Appendf(nil, "%q %q", by, key)).String()
}

// madeOnce makes something with an id that keyID gave, unless it is there: then it says so, and it is for the caller to see whether that is
// what was asked for. With an empty id it is made in any case.
func madeOnce[T any](id string, find func(id string) (T, error), create func() (T, error)) (made T, before bool, err error) {
	if id != "" {
		if made, err = find(id); !errors.Is(err, release.ErrNotFound) {
			return made, err == nil, err
		}
	}
	made, err = create()
	if id != "" && errors.Is(err, release.ErrConflict) { // it may have been made at this very moment
		if there, findErr := find(id); findErr == nil {
			return there, true, nil
		}
	}
	return made, false, err
}

// equalJSON says whether two values are written alike.
func equalJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// sameJSON compares two values of JSON, whose blanks and order of fields do not matter; none is equal to none alone.
func sameJSON(a, b json.RawMessage) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && equalJSON(x, y)
}
