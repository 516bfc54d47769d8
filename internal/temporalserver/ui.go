package temporalserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"regexp"
	"sync/atomic"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	"github.com/temporalio/ui-server/v2/server/api"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	"github.com/temporalio/ui-server/v2/server/csrf"
	"github.com/temporalio/ui-server/v2/server/headers"
	"github.com/temporalio/ui-server/v2/server/route"
	uiassets "github.com/temporalio/ui-server/v2/ui"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// maxUIMessage is the largest answer of the frontend that the UI takes, as in the UI's own server.
const maxUIMessage = 64 << 20

// ui is Temporal's web UI as a handler. The UI's own server would open a port and end the process if it is taken; this
// is the same routes and middleware without either, and with a connection that carries our certificate and credential.
type ui struct {
	echo   *echo.Echo
	conn   *grpc.ClientConn
	closed atomic.Bool
}

func newUI(s *Server) (*ui, error) {
	conn, err := grpc.NewClient(s.address,
		grpc.WithTransportCredentials(credentials.NewTLS(s.identity.clientTLS())),
		grpc.WithPerRPCCredentials(bearer(s.identity.credential)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxUIMessage)),
	)
	if err != nil {
		return nil, fmt.Errorf("connect the Temporal UI: %w", err)
	}
	e, err := newEcho(s, conn)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("build the Temporal UI: %w", err), conn.Close())
	}
	return &ui{echo: e, conn: conn}, nil
}

func newEcho(s *Server, conn *grpc.ClientConn) (*echo.Echo, error) {
	provider, err := uiconfig.NewConfigProviderWithRefresh(&uiconfig.Config{
		TemporalGRPCAddress: s.address,
		EnableUI:            true,
		PublicPath:          s.cfg.UIPath,
		DefaultNamespace:    s.cfg.Namespace,
		DisableNewsFetch:    true,
		HideLogs:            true,
	})
	if err != nil {
		return nil, err
	}
	all, err := uiassets.Assets()
	if err != nil {
		return nil, err
	}
	assets, err := fs.Sub(all, "local")
	if err != nil {
		return nil, err
	}
	moved, err := moveIndex(assets, s.cfg.UIPath)
	if err != nil {
		return nil, err
	}

	e := echo.New()
	e.Logger.SetOutput(s.log.file)
	e.Use(middleware.Recover(), middleware.Gzip(), middleware.Secure(),
		csrf.EnsureTokenCookie(s.cfg.SecureCookies),
		middleware.CSRFWithConfig(csrf.MiddlewareConfig(provider, s.cfg.SecureCookies)),
		withoutLogin)
	if s.cfg.UIPath != "" {
		e.Pre(route.PublicPath(s.cfg.UIPath))
	}
	forward := []api.Middleware{headers.WithForwardHeaders([]string{"Caller-Type"})}
	group := e.Group("/api/v1")
	group.GET("/settings", api.GetSettings(provider))
	group.GET("/ui-extensions", api.GetUIExtensions(provider, nil))
	group.GET(api.WorkflowRawHistoryUrl, api.WorkflowRawHistoryHandler(workflowservice.NewWorkflowServiceClient(conn)))
	group.Any("/*", api.TemporalAPIHandler(provider, forward, conn))
	if err := route.SetUIRoutes(e, "", moved, provider); err != nil { // the path is in the index already
		return nil, err
	}
	route.SetRenderRoute(e, "/")
	return e, nil
}

// ServeHTTP implements http.Handler.
func (u *ui) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if u.closed.Load() {
		http.Error(w, "the Temporal server is stopped", http.StatusServiceUnavailable)
		return
	}
	u.echo.ServeHTTP(w, r)
}

func (u *ui) close() {
	u.closed.Store(true)
	_ = u.conn.Close()
}

// withoutLogin keeps our own login (cookie or token) from Temporal: the gateway would hand both on as metadata, and the
// token in place of the credential.
func withoutLogin(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		c.Request().Header.Del(echo.HeaderAuthorization)
		c.Request().Header.Del(echo.HeaderCookie)
		return next(c)
	}
}

// bearer adds the credential to each call.
type bearer string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (b bearer) RequireTransportSecurity() bool { return true }

// movedFS is the UI's files with an index page that knows its path.
type movedFS struct {
	fs.FS
	index []byte
}

// ReadFile implements fs.ReadFileFS.
func (m movedFS) ReadFile(name string) ([]byte, error) {
	if name == "index.html" {
		return m.index, nil
	}
	return fs.ReadFile(m.FS, name)
}

var (
	inlineScript = regexp.MustCompile(`(?s)<script>(.*?)</script>`)
	scriptHash   = regexp.MustCompile(`'sha256-[A-Za-z0-9+/=]+'`)
)

// moveIndex writes the path into the index page. The UI's own server does it too, and then drops the page's content
// security policy, whose hash no longer fits; here the hash is made anew.
func moveIndex(assets fs.FS, path string) (fs.FS, error) {
	index, err := fs.ReadFile(assets, "index.html")
	if err != nil {
		return nil, err
	}
	index = bytes.ReplaceAll(index, []byte(`base: ""`), []byte(`base: "`+path+`"`))
	index = bytes.ReplaceAll(index, []byte(`"/_app/`), []byte(`"`+path+`/_app/`))
	scripts := inlineScript.FindAllSubmatch(index, -1)
	if len(scripts) != 1 || len(scriptHash.FindAll(index, -1)) != 1 {
		return nil, errors.New("the index page is not as expected: one inline script and its hash")
	}
	sum := sha256.Sum256(scripts[0][1])
	index = scriptHash.ReplaceAllLiteral(index, []byte("'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'"))
	return movedFS{FS: assets, index: index}, nil
}
