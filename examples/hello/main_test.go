package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHandler(t *testing.T) {
	for path, want := range map[string]string{"/": "hello 1.0\n", "/healthz": "ok\n"} {
		answer := httptest.NewRecorder()
		handler("1.0").ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
		require.Equal(t, http.StatusOK, answer.Code)
		require.Equal(t, want, answer.Body.String())
	}
}
