// Package api is QuicFlow's HTTP interface: operations by noun, described by OpenAPI, behind a login.
//
// Go types are the description: [Spec] gives the OpenAPI document made from them, which is committed as openapi.yaml and
// from which clients are generated.
package api

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/bus"
	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

//go:generate go run ./gen openapi.yaml

// Store is what the API reads and writes. It must be safe for concurrent use. Its errors are *release.Error where a user
// is to see them; any other is an internal one, logged and not shown.
type Store interface {
	TokenByHash(ctx context.Context, hash string) (name string, err error)
	CreateJoinToken(ctx context.Context, token store.JoinToken) error

	ClientByID(ctx context.Context, id string) (release.Client, error)
	Clients(ctx context.Context, filter store.ClientFilter) (clients []release.Client, total int, err error)
	RevokeClient(ctx context.Context, clientID string) error
	ClientTasks(ctx context.Context, clientID string, limit int) ([]store.ClientTask, error)
	PreviewTargets(ctx context.Context, targets release.Targets, sample int) (store.TargetPreview, error)

	CreateProject(ctx context.Context, p *release.Project, g ...store.Guard) error
	Project(ctx context.Context, ref string) (release.Project, error)
	Projects(ctx context.Context, filter store.ProjectFilter) (projects []release.Project, total int, err error)
	UpdateProject(ctx context.Context, p *release.Project, g store.Guard) error
	DeleteProject(ctx context.Context, id string, g store.Guard) error
	CreateVersion(ctx context.Context, v *release.Version, g ...store.Guard) error
	Version(ctx context.Context, projectRef, ref string) (release.Version, error)
	VersionByID(ctx context.Context, id string) (release.Version, error)
	Versions(ctx context.Context, projectRef string, filter store.VersionFilter) (versions []release.Version, total int, err error)
	SetVersionStatus(ctx context.Context, id string, status release.VersionStatus, g ...store.Guard) (release.Version, error)
	UpdateVersion(ctx context.Context, v *release.Version, g store.Guard) error
	DeleteVersion(ctx context.Context, id string, g store.Guard) error
	CreateEnvironment(ctx context.Context, e *release.Environment, g ...store.Guard) error
	Environment(ctx context.Context, projectRef, ref string) (release.Environment, error)
	Environments(ctx context.Context, projectRef string, limit, offset int) (environments []release.Environment, total int, err error)
	UpdateEnvironment(ctx context.Context, e *release.Environment, g store.Guard) error
	DeleteEnvironment(ctx context.Context, projectID, id string, g store.Guard) error
	Variables(ctx context.Context, of store.Scope) ([]release.Variable, error)
	SecretValues(ctx context.Context, of store.Scope, names []string) (map[string]string, error)
	VariablesFor(ctx context.Context, of store.Scope) ([]release.Variable, error)
	Variable(ctx context.Context, of store.Scope, name string) (release.Variable, error)
	PutVariable(ctx context.Context, of store.Scope, v *release.Variable, keep bool, g store.Guard) (created bool, err error)
	DeleteVariable(ctx context.Context, of store.Scope, name string, g store.Guard) error
	Snapshot(ctx context.Context, id string) (release.Snapshot, error)

	ResolveTargets(ctx context.Context, targets release.Targets) ([]string, error)
	CreateTask(ctx context.Context, task *release.Task, clientIDs []string) error
	Task(ctx context.Context, id string) (release.Task, error)
	Tasks(ctx context.Context, filter store.TaskFilter) ([]release.Task, int, error)
	RecentTasks(ctx context.Context, after time.Time, limit int) (store.RecentTasks, error)
	Targets(ctx context.Context, taskID string, filter store.TargetFilter) ([]release.Target, int, error)
	TargetGrid(ctx context.Context, taskID string, since time.Time) (store.TargetGrid, error)
	TaskFailures(ctx context.Context, taskID string, limit int) (groups []store.FailureGroup, total int, err error)

	Logs(ctx context.Context, taskID string, afterSeq int64, filter store.LogFilter, limit int) ([]release.LogRecord, error)
	LogHead(ctx context.Context, taskID string) (int64, error)
	LogsComplete(ctx context.Context, taskID string) (complete bool, missing []string, err error)

	CreateSchedule(ctx context.Context, s *release.Schedule) error
	UpdateSchedule(ctx context.Context, s *release.Schedule, revision int64) error
	DeleteSchedule(ctx context.Context, id string) error
	Schedule(ctx context.Context, ref string) (release.Schedule, error)
	Schedules(ctx context.Context, filter store.ScheduleFilter) ([]release.Schedule, int, error)
	Fires(ctx context.Context, scheduleID string, filter store.FireFilter) ([]release.Fire, int, error)

	Installations(ctx context.Context, filter store.InstallationFilter) ([]release.Installation, int, error)
	RecordRunning(ctx context.Context, found []release.Installation) error

	CreateJob(ctx context.Context, j *job.Job, clientIDs []string) error
	Job(ctx context.Context, id string) (job.Job, error)
	Jobs(ctx context.Context, filter store.JobFilter) ([]job.Job, int, error)
	JobTargets(ctx context.Context, jobID string, filter store.JobTargetFilter) ([]job.Target, int, error)
	JobTarget(ctx context.Context, jobID, clientID string) (job.Target, error)
	JobFailures(ctx context.Context, jobID string, limit int) (groups []store.FailureGroup, total int, err error)
	FinishedTargets(ctx context.Context, jobID string, after store.TargetCursor, limit int) ([]job.Target, store.TargetCursor, error)
	Commands(ctx context.Context, filter store.CommandFilter) ([]store.Command, int, error)

	Artifact(ctx context.Context, sha256 string) (release.StoredArtifact, error)
	Artifacts(ctx context.Context, filter store.ArtifactFilter) ([]release.StoredArtifact, int, error)

	AgentGroups(ctx context.Context) ([]store.AgentGroup, error)
	Figures(ctx context.Context) (store.Figures, error)
}

var _ Store = (*store.Store)(nil)

// Rollouts carries out tasks. Its methods are safe for concurrent use and may be repeated; those that steer answer
// release.ErrConflict where the task is in no state for it, release.ErrUnavailable where no one could be asked.
type Rollouts interface {
	// Start makes a stored task begin. After an error the task begins later, by the reconciler.
	Start(ctx context.Context, task release.Task) error
	Promote(ctx context.Context, taskID, by, reason string) error
	Pause(ctx context.Context, taskID, by, reason string) error
	Resume(ctx context.Context, taskID, by, reason string) error
	Abort(ctx context.Context, taskID, by, reason string) error
	Rollback(ctx context.Context, taskID, by, reason string) error
}

// Jobs carries out commands and batch jobs. Its methods are safe for concurrent use; those that steer answer
// release.ErrConflict where the job is in no state for it, release.ErrUnavailable where no one could be asked.
type Jobs interface {
	// StartJob makes a stored job begin. After an error the job begins later, by the reconciler.
	StartJob(ctx context.Context, j job.Job) error
	PauseJob(ctx context.Context, jobID, by, reason string) error
	ResumeJob(ctx context.Context, jobID, by, reason string) error
	CancelJob(ctx context.Context, jobID, by, reason string) error
}

// Messages reaches the agents with a session at this server's hub. Nothing of it is stored. See hub.Hub.
type Messages interface {
	Clients() []string
	Request(ctx context.Context, clientID string, req *quicflowv1.Request) (*quicflowv1.Response, error)
	Post(clientID string, req *quicflowv1.Request) error
	Broadcast(ctx context.Context, clientIDs []string, req *quicflowv1.Request) iter.Seq[hub.Answer]
	TailLogs(ctx context.Context, clientID string, asked *quicflowv1.TailLogs, out io.Writer) error
}

var _ Messages = (*hub.Hub)(nil)

// Bus tells when a topic has changed; the log stream follows bus.Task, the events everything. See bus.Bus.
type Bus interface {
	Subscribe(topic string) (changed <-chan struct{}, cancel func())
	Watch() *bus.Watch
	Notify(topic string)
}

var _ Bus = (*bus.Bus)(nil)

// Joins is the authority whose fingerprint goes into join tokens. See pki.CA.
type Joins interface {
	Fingerprint() [32]byte
}

// Check is one condition of readiness. It must return soon after ctx ends.
type Check func(ctx context.Context) error

// Config sets up the API.
type Config struct {
	Store    Store    // Required.
	Rollouts Rollouts // Required.
	Jobs     Jobs     // Required.
	// Schedules are required.
	Schedules Schedules
	Messages  Messages // Required.
	Bus       Bus      // Required.
	Joins     Joins    // Required.

	Artifacts Artifacts // Required.

	// Limits are the defaults and bounds of commands and batch jobs (batch.*). The zero value means those of the default
	// configuration.
	Limits job.Limits
	// NoBatch refuses new batch jobs (batch.enabled). Commands go on.
	NoBatch bool

	// Revoked is called after a client's certificates were revoked, so that its session can be ended. Defaults to nothing.
	Revoked func(clientID string)
	// Console answers GETs of browsers beside the API, without a login. Defaults to two small pages: a login and where to go.
	Console http.Handler
	// TemporalUI answers below /temporal/, for those who have logged in. Defaults to a redirect to TemporalUIURL.
	TemporalUI http.Handler
	// TemporalUIURL is where the UI of an external Temporal is. Defaults to none: /temporal/ does not exist then.
	TemporalUIURL string
	// TemporalNamespace is where the workflows are, for links into the UI. Defaults to "": no links.
	TemporalNamespace string
	// AgentPort is the port of the hub, for the command with which an agent joins. Defaults to 0: not told.
	AgentPort int
	// Checks are the conditions of /ready by name. Defaults to none: ready as soon as it answers.
	Checks map[string]Check
	// System is what GET /api/system tells of this server. Defaults to what the API knows by itself.
	System SystemConfig
	// SessionKey signs the cookies of logins; see LoadSessionKey. Defaults to a random one: logins end with the process.
	SessionKey []byte
	// Version is the server's, as told by /health. Defaults to "dev".
	Version string
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// Now defaults to time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.Store == nil:
		return c, errors.New("api: Config.Store is missing")
	case c.Rollouts == nil:
		return c, errors.New("api: Config.Rollouts is missing")
	case c.Jobs == nil:
		return c, errors.New("api: Config.Jobs is missing")
	case c.Schedules == nil:
		return c, errors.New("api: Config.Schedules is missing")
	case c.Messages == nil:
		return c, errors.New("api: Config.Messages is missing")
	case c.Bus == nil:
		return c, errors.New("api: Config.Bus is missing")
	case c.Joins == nil:
		return c, errors.New("api: Config.Joins is missing")
	case c.Artifacts == nil:
		return c, errors.New("api: Config.Artifacts is missing")
	case len(c.SessionKey) != 0 && len(c.SessionKey) < minSessionKey:
		return c, errors.New("api: Config.SessionKey is shorter than 32 bytes")
	}
	if c.Revoked == nil {
		c.Revoked = func(string) {}
	}
	if c.SessionKey == nil {
		c.SessionKey = make([]byte, minSessionKey)
		_, _ = rand.Read(c.SessionKey) // never fails
	}
	if c.Limits == (job.Limits{}) {
		c.Limits = job.Limits{
			MaxConcurrency: 5000, TaskTimeout: release.Duration(time.Minute), JobTimeout: release.Duration(10 * time.Minute),
			RetryInterval: release.Duration(time.Second), Retries: 2,
		}
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	c.System = c.System.withDefaults()
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c, nil
}

type server struct {
	Config
	sessions    sessions
	crossOrigin *http.CrossOriginProtection
	logins      *loginLimiter
	pages       pages
}

// New makes the handler. Streams end when their request's context does, so a server that is to shut down in an orderly
// way gives its requests a BaseContext and cancels that first.
func New(config Config) (http.Handler, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &server{
		Config:      config,
		sessions:    sessions{key: config.SessionKey, now: config.Now},
		crossOrigin: http.NewCrossOriginProtection(),
		logins:      newLoginLimiter(),
		pages:       loadPages(config.TemporalUIURL),
	}
	router := chi.NewRouter()
	router.Use(s.logRequests, secureHeaders, s.console, s.authenticate)
	router.NotFound(func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, http.StatusNotFound, "there is nothing at "+r.URL.Path)
	})
	router.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, http.StatusMethodNotAllowed, r.Method+" is not possible at "+r.URL.Path)
	})
	router.Get("/", s.home)
	router.Get("/login", s.loginPage)
	router.Post("/login", s.login)
	router.Post("/logout", s.logout)
	s.mountTemporal(router)
	s.register(humachi.New(router, humaConfig(config.Version)))
	return router, nil
}

func (s *server) register(api huma.API) {
	s.registerHealth(api)
	s.registerClients(api)
	s.registerTargetPreview(api)
	s.registerAgentTokens(api)
	s.registerProjects(api)
	s.registerVersions(api)
	s.registerEnvironments(api)
	s.registerVariables(api)
	s.registerTasks(api)
	s.registerTaskControl(api)
	s.registerSchedules(api)
	s.registerLogs(api)
	s.registerPreview(api)
	s.registerInstallations(api)
	s.registerDrift(api)
	s.registerRefs(api)
	s.registerContainerLogs(api)
	s.registerCommands(api)
	s.registerMulti(api)
	s.registerBatch(api)
	s.registerJobControl(api)
	s.registerMessages(api)
	s.registerEvents(api)
	s.registerOverview(api)
	s.registerTargetGrid(api)
	s.registerSession(api)
	s.registerSystem(api)
	s.registerArtifacts(api)
	describeLogin(api.OpenAPI())
}
