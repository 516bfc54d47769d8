package temporalserver

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const testQueue = "test"

func testConfig(t *testing.T) Config {
	return Config{
		DataDir:          t.TempDir(),
		UIPath:           "/temporal",
		SearchAttributes: map[string]enumspb.IndexedValueType{"QuicFlowProject": enumspb.INDEXED_VALUE_TYPE_KEYWORD},
		Logger:           slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

func start(t *testing.T, cfg Config) *Server {
	t.Helper()
	s, err := Start(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *Server) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
	defer cancel()
	require.NoError(t, s.Stop(ctx))
}

func dial(t *testing.T, s *Server) client.Client {
	t.Helper()
	c, err := client.DialContext(t.Context(), s.ClientOptions())
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// hello calls one activity.
func hello(ctx workflow.Context, name string) (string, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: 10 * time.Second})
	var out string
	return out, workflow.ExecuteActivity(ctx, greet, name).Get(ctx, &out)
}

func greet(_ context.Context, name string) (string, error) { return "hello, " + name, nil }

func runHello(t *testing.T, c client.Client, id string) {
	t.Helper()
	w := worker.New(c, testQueue, worker.Options{})
	w.RegisterWorkflow(hello)
	w.RegisterActivity(greet)
	require.NoError(t, w.Start())
	defer w.Stop()
	run, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID:                    id,
		TaskQueue:             testQueue,
		TypedSearchAttributes: temporal.NewSearchAttributes(temporal.NewSearchAttributeKeyKeyword("QuicFlowProject").ValueSet("shop")),
	}, hello, "world")
	require.NoError(t, err)
	var out string
	require.NoError(t, run.Get(t.Context(), &out))
	require.Equal(t, "hello, world", out)
}

// One test for everything that wants a running server, because each costs seconds.
func TestSQLite(t *testing.T) {
	cfg := testConfig(t)
	s := start(t, cfg)
	c := dial(t, s)

	runHello(t, c, "release/shop/1")
	require.Eventually(t, func() bool {
		list, err := c.ListWorkflow(t.Context(), &workflowservice.ListWorkflowExecutionsRequest{Query: "QuicFlowProject = 'shop'"})
		require.NoError(t, err)
		return len(list.Executions) == 1
	}, 10*time.Second, 50*time.Millisecond)

	ns, err := c.WorkflowService().DescribeNamespace(t.Context(), &workflowservice.DescribeNamespaceRequest{Namespace: "default"})
	require.NoError(t, err)
	require.Equal(t, 30*24*time.Hour, ns.Config.WorkflowExecutionRetentionTtl.AsDuration())

	t.Run("denied", func(t *testing.T) { testDenied(t, s) })
	t.Run("ui", func(t *testing.T) { testUI(t, s) })
	t.Run("private files", func(t *testing.T) {
		for _, name := range []string{"temporal.db", "log/temporal.log"} {
			info, err := os.Stat(filepath.Join(cfg.DataDir, name))
			require.NoError(t, err)
			require.Zero(t, info.Mode().Perm()&0o077, name)
		}
	})

	stop(t, s)
	recorder := httptest.NewRecorder()
	s.UIHandler().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/temporal/", nil))
	require.Equal(t, http.StatusServiceUnavailable, recorder.Code)

	again := start(t, cfg)
	require.NotEqual(t, s.identity.credential, again.identity.credential)
	c = dial(t, again)
	var out string
	require.NoError(t, c.GetWorkflow(t.Context(), "release/shop/1", "").Get(t.Context(), &out))
	require.Equal(t, "hello, world", out)
	runHello(t, c, "release/shop/2")
}

// testDenied is another user of the machine, who can reach every port.
func testDenied(t *testing.T, s *Server) {
	stranger, err := newIdentity()
	require.NoError(t, err)
	noCertificate := s.identity.clientTLS()
	noCertificate.Certificates = nil
	call := func(port int, creds credentials.TransportCredentials, opts ...grpc.DialOption) error {
		conn, err := grpc.NewClient(hostPort(port), append(opts, grpc.WithTransportCredentials(creds))...)
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		_, err = workflowservice.NewWorkflowServiceClient(conn).ListNamespaces(t.Context(), &workflowservice.ListNamespacesRequest{})
		return err
	}
	for name, port := range s.ports {
		for how, creds := range map[string]credentials.TransportCredentials{
			"plain":               insecure.NewCredentials(),
			"unverified":          credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}),
			"no certificate":      credentials.NewTLS(noCertificate),
			"another certificate": credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{stranger.client}}),
		} {
			t.Run(string(name)+" "+how, func(t *testing.T) {
				err := call(port, creds, grpc.WithPerRPCCredentials(optional{bearer(s.identity.credential)}))
				require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
			})
		}
	}

	ours := credentials.NewTLS(s.identity.clientTLS())
	frontend := s.ports["frontend"]
	require.NoError(t, call(frontend, ours, grpc.WithPerRPCCredentials(bearer(s.identity.credential))))
	require.Equal(t, codes.PermissionDenied, status.Code(call(frontend, ours)))
	require.Equal(t, codes.PermissionDenied, status.Code(call(frontend, ours, grpc.WithPerRPCCredentials(bearer("guess")))))

	options := s.ClientOptions()
	options.Credentials = client.NewAPIKeyStaticCredentials("guess")
	_, err = client.DialContext(t.Context(), options)
	var denied *serviceerror.PermissionDenied
	if err == nil || !errors.As(err, &denied) {
		t.Fatalf("a client without the credential got %v", err)
	}
}

// optional is a credential that is sent without TLS too.
type optional struct{ bearer }

func (optional) RequireTransportSecurity() bool { return false }

func testUI(t *testing.T, s *Server) {
	site := httptest.NewServer(s.UIHandler())
	defer site.Close()
	get := func(path string) (kind, body string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, site.URL+path, nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer qfa_ours") // our login must not disturb Temporal
		req.AddCookie(&http.Cookie{Name: "quicflow_session", Value: "ours"})
		res, err := site.Client().Do(req)
		require.NoError(t, err)
		defer func() { _ = res.Body.Close() }()
		text, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, res.StatusCode, "%s: %s", path, text)
		return res.Header.Get("Content-Type"), string(text)
	}

	_, body := get("/temporal/namespaces/default/workflows")
	require.Contains(t, body, `base: "/temporal"`)
	require.Contains(t, body, "content-security-policy")
	require.NotContains(t, body, `"/_app/`)

	_, script, found := strings.Cut(body, `import("`)
	require.True(t, found)
	script, _, _ = strings.Cut(script, `"`)
	kind, _ := get(script)
	require.Contains(t, kind, "javascript")

	_, body = get("/temporal/api/v1/namespaces/default/workflows?query=")
	require.Contains(t, body, "release/shop/1")
	_, body = get("/temporal/api/v1/namespaces/default/workflows/release%2Fshop%2F1")
	require.Contains(t, body, "release/shop/1")

	// Another site's page cannot act with the browser's login.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		site.URL+"/temporal/api/v1/namespaces/default/workflows/release%2Fshop%2F1/terminate", strings.NewReader("{}"))
	require.NoError(t, err)
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	res, err := site.Client().Do(req)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusForbidden, res.StatusCode)
}

func TestSQLiteOfAnotherVersion(t *testing.T) {
	for name, record := range map[string]string{"other": "1.20.0\n", "none": ""} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			require.NoError(t, os.WriteFile(filepath.Join(cfg.DataDir, "temporal.db"), []byte("SQLite format 3"), 0o600))
			if record != "" {
				require.NoError(t, os.WriteFile(filepath.Join(cfg.DataDir, "temporal.db.version"), []byte(record), 0o600))
			}
			_, err := Start(t.Context(), cfg)
			require.ErrorContains(t, err, "temporal.db was made by")
			require.ErrorContains(t, err, Version)
			require.ErrorContains(t, err, strings.TrimSpace(record))
		})
	}
}

// A start that was killed between the version record and the database, or in the middle of the schema, is healed.
func TestSQLiteAfterAnInterruptedStart(t *testing.T) {
	cfg := testConfig(t)
	cfg.DataDir = filepath.Join(cfg.DataDir, "odd %41?#name")
	require.NoError(t, os.Mkdir(cfg.DataDir, 0o700))
	file := filepath.Join(cfg.DataDir, "temporal.db")
	require.NoError(t, os.WriteFile(file+".version", []byte(Version), 0o600))
	require.NoError(t, os.WriteFile(file+".new", []byte("half a database"), 0o600))
	p, err := openSQLite(cfg, nil)
	require.NoError(t, err)
	p.close()
	require.FileExists(t, file)
	require.NoFileExists(t, file+".new")
	_, err = openSQLite(cfg, nil)
	require.NoError(t, err)
}

func TestConfigRequiresDataDir(t *testing.T) {
	_, err := Start(t.Context(), Config{})
	require.ErrorContains(t, err, "DataDir")
}
