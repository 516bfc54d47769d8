package apiclient_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quicflow/quicflow/internal/apiclient"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

func serve(t *testing.T, handler http.HandlerFunc) *apiclient.API {
	t.Helper()
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	api, err := apiclient.New(apiclient.Config{Server: srv.URL, Token: "secret"})
	require.NoError(t, err)
	return api
}

func logEvent(w io.Writer, seq int) {
	fmt.Fprintf(w, "event: log\nid: %d\ndata: {\"seq\":%d,\"text\":\"x\"}\n\n", seq, seq)
}

// A stream may break anywhere, in the middle of an event too; the next request says what was had in full.
func TestFollowerAsksAgainFromTheLastWholeEvent(t *testing.T) {
	var asked []string
	api := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("Last-Event-ID"))
		switch len(asked) {
		case 1:
			logEvent(w, 1)
			logEvent(w, 2)
			fmt.Fprint(w, "event: log\nid: 3\ndata: {\"seq\":3,")
		case 2:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			fmt.Fprint(w, ": alive\n\nevent: future\ndata: {}\n\n")
			logEvent(w, 3)
			fmt.Fprint(w, "event: end\ndata: {\"status\":\"succeeded\",\"logs_complete\":true,\"missing\":[]}\n\n")
		}
	})
	lost, resumed := 0, []int64{}
	follower := apiclient.Follower{API: api, TaskID: "t", Lost: func(error) { lost++ }, Resumed: func(after int64) { resumed = append(resumed, after) }}
	var seqs []int64
	ended := false
	for event, err := range follower.Events(t.Context()) {
		require.NoError(t, err)
		if event.Log != nil {
			seqs = append(seqs, event.Log.Seq)
		}
		ended = event.End != nil
	}
	require.Equal(t, []int64{1, 2, 3}, seqs)
	require.True(t, ended)
	require.Equal(t, []string{"", "2", "2"}, asked)
	require.Equal(t, 1, lost)
	require.Equal(t, []int64{2}, resumed)
}

func TestFollowerGivesUp(t *testing.T) {
	for name, c := range map[string]struct {
		status   int
		patience time.Duration
		want     string
		requests int32
	}{
		"what asking again will not change": {http.StatusUnauthorized, time.Minute, "unauthorized", 1},
		"patience":                          {http.StatusInternalServerError, time.Nanosecond, "not reached", 1},
	} {
		t.Run(name, func(t *testing.T) {
			var requests atomic.Int32
			api := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				requests.Add(1)
				w.Header().Set("Content-Type", "application/problem+json")
				w.WriteHeader(c.status)
				fmt.Fprintf(w, `{"title":%q}`, http.StatusText(c.status))
			})
			follower := apiclient.Follower{API: api, TaskID: "t", Patience: c.patience}
			var last error
			for _, err := range follower.Events(t.Context()) {
				last = err
			}
			require.ErrorContains(t, last, c.want)
			require.Equal(t, c.status, apiclient.StatusOf(last))
			require.Equal(t, c.requests, requests.Load())
		})
	}
}

func TestFollowerEndsWithItsContext(t *testing.T) {
	api := serve(t, func(w http.ResponseWriter, r *http.Request) {
		logEvent(w, 1)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, err := range (&apiclient.Follower{API: api, TaskID: "t"}).Events(ctx) {
		last = err
		cancel()
	}
	require.ErrorIs(t, last, context.Canceled)
}

func TestProblemOfAStranger(t *testing.T) {
	token := ""
	api := serve(t, func(w http.ResponseWriter, r *http.Request) {
		token = r.Header.Get("Authorization")
		http.Error(w, "<html>", http.StatusBadGateway)
	})
	_, err := apiclient.Read[apiclient.Task](api.GetTask(t.Context(), "t"))
	require.ErrorContains(t, err, "not as a QuicFlow server")
	require.Equal(t, http.StatusBadGateway, apiclient.StatusOf(err))
	require.Equal(t, "Bearer secret", token)
}

func TestConfigIsChecked(t *testing.T) {
	for _, server := range []string{"localhost:8475", "ftp://x", "http://", "::"} {
		_, err := apiclient.New(apiclient.Config{Server: server})
		require.ErrorContains(t, err, "is not a URL")
	}
	_, err := apiclient.New(apiclient.Config{CAFile: "/nowhere"})
	require.ErrorContains(t, err, "CA certificate")
}
