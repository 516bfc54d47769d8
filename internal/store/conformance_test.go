package store_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/pgtest"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

var postgres *pgtest.Server

func TestMain(m *testing.M) {
	os.Exit(pgtest.Main(m, &postgres, func() error { return goleak.Find() }))
}

// TestConformance holds both databases to the same behaviour.
func TestConformance(t *testing.T) {
	databases := map[store.Driver]func(t *testing.T) string{
		store.SQLite:   func(t *testing.T) string { return filepath.Join(t.TempDir(), "it's a #1 100%?.db") },
		store.Postgres: func(t *testing.T) string { return postgres.Database(t) },
	}
	for driver, makeDSN := range databases {
		t.Run(string(driver), func(t *testing.T) {
			for _, group := range []map[string]func(*fixture){
				tokenTests, joinTests, sessionTests, factsTests, clientTests, projectTests, taskTests, chunkTests, stepTests, resultTests, logTests,
				retentionTests, statsTests, manageTests, snapshotTests, scheduleTests, artifactTests, jobTests, jobResultTests, jobRetryTests, jobReadTests, gridTests,
			} {
				for name, test := range group {
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						f := &fixture{T: t, config: store.Config{Driver: driver, DSN: makeDSN(t), OfflineGrace: 90 * time.Second,
							SecretKey: testKey, Logger: slog.New(slog.DiscardHandler)}, time: time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)}
						f.config.Now = f.now
						f.open()
						t.Cleanup(func() { require.NoError(t, f.Close()) })
						test(f)
					})
				}
			}
		})
	}
}

// fixture is a store on an empty database, with a clock that stands still, and short ways to what most tests need.
type fixture struct {
	*testing.T
	*store.Store
	config store.Config

	mu   sync.Mutex
	time time.Time
}

func (f *fixture) now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.time
}

func (f *fixture) advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.time = f.time.Add(d)
}

func (f *fixture) open() {
	f.Helper()
	s, err := store.Open(f.Context(), f.config)
	require.NoError(f, err)
	f.Store = s
}

func (f *fixture) ctx() context.Context { return f.Context() }

// join makes n clients known, h000, h001, …, and gives their ids.
func (f *fixture) join(n int) []string {
	f.Helper()
	hash := fmt.Sprint("join ", f.Name(), n)
	require.NoError(f, f.CreateJoinToken(f.ctx(), store.JoinToken{ID: hash, Hash: hash, Pattern: "h*", Uses: n, ExpiresAt: f.now().Add(time.Hour)}))
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("h%03d", i)
		require.NoError(f, f.RedeemJoinToken(f.ctx(), auth.Redemption{TokenHash: hash, ClientID: ids[i], PublicKeyHash: "key of " + ids[i]}))
	}
	return ids
}

// connect gives the clients sessions on a node, and their epochs.
func (f *fixture) connect(node string, ids ...string) map[string]int64 {
	f.Helper()
	sessions := make([]release.ClientSession, len(ids))
	for i, id := range ids {
		sessions[i] = release.ClientSession{ClientID: id, NodeID: node, JournalID: "journal of " + id, Generation: 1, BootID: "boot", At: f.now()}
	}
	entries, err := f.ConnectClients(f.ctx(), sessions)
	require.NoError(f, err)
	require.Len(f, entries, len(ids))
	epochs := map[string]int64{}
	for id, entry := range entries {
		epochs[id] = entry.Epoch
	}
	return epochs
}

// project makes a project with active versions of these names.
func (f *fixture) project(name string, versions ...string) map[string]release.Version {
	f.Helper()
	p := release.Project{Name: name, Type: release.TypeScript}
	require.NoError(f, f.CreateProject(f.ctx(), &p))
	made := map[string]release.Version{}
	for _, version := range versions {
		v := release.Version{Project: name, Name: version, Status: release.VersionActive, Spec: release.Spec{Script: &release.ScriptSpec{Install: "true"}}}
		require.NoError(f, f.CreateVersion(f.ctx(), &v))
		made[version] = v
	}
	return made
}

// deploy makes a task that deploys a version, or uninstalls if version is nil, without a canary.
func (f *fixture) deploy(project string, version *release.Version, ids ...string) release.Task {
	f.Helper()
	p, err := f.Project(f.ctx(), project)
	require.NoError(f, err)
	t := release.Task{ProjectID: p.ID, Action: release.ActionUninstall, Targets: release.Targets{Clients: ids}}
	if version != nil {
		t.Action, t.VersionID = release.ActionDeploy, version.ID
	}
	require.NoError(f, f.CreateTask(f.ctx(), &t, ids))
	return t
}

// plan plans the step of wave 1 (or the rollback) in one go, and gives its steps by client.
func (f *fixture) plan(task release.Task, name release.StepName) map[string]release.Step {
	f.Helper()
	plans, err := f.PlanChunks(f.ctx(), task.ID, name, 1, 1000, "default")
	require.NoError(f, err)
	steps := map[string]release.Step{}
	for _, p := range plans {
		chunk, err := f.ChunkSteps(f.ctx(), task.ID, name, p.Chunk)
		require.NoError(f, err)
		require.Len(f, chunk, p.Size)
		for _, s := range chunk {
			steps[s.ClientID] = s
		}
	}
	return steps
}

// dispatch plans a step and marks it dispatched on these clients.
func (f *fixture) dispatch(task release.Task, name release.StepName, ids ...string) map[string]release.Step {
	f.Helper()
	steps := f.plan(task, name)
	f.advance(time.Second)
	marked, halted, err := f.MarkDispatched(f.ctx(), task.ID, name, ids)
	require.NoError(f, err)
	require.False(f, halted)
	require.Equal(f, ids, marked)
	return steps
}

// report has an agent report a result.
func (f *fixture) report(step release.Step, state release.StepState) []release.Step {
	f.Helper()
	r := release.StepResult{StepID: step.ID, ClientID: step.ClientID, State: state, ExitCode: -1, FinishedAt: f.now()}
	if state != release.StepSucceeded {
		r.Error, r.ExitCode = string(state), 3
	}
	recorded, err := f.RecordResults(f.ctx(), []release.StepResult{r})
	require.NoError(f, err)
	return recorded
}

// release deploys a version on clients, with success.
func (f *fixture) release(project string, version *release.Version, ids ...string) release.Task {
	f.Helper()
	task := f.deploy(project, version, ids...)
	steps := f.dispatch(task, release.StepDeploy, ids...)
	for _, id := range ids {
		f.report(steps[id], release.StepSucceeded)
	}
	return task
}

// many is a number of rows that takes more than one statement. SQLite takes smaller ones, and is slow under the race
// detector.
func (f *fixture) many() int {
	if f.config.Driver == store.SQLite {
		return 60
	}
	return 1100
}

// target gives one of a task's targets.
func (f *fixture) target(task release.Task, id string) release.Target {
	f.Helper()
	targets, _, err := f.Targets(f.ctx(), task.ID, store.TargetFilter{})
	require.NoError(f, err)
	for _, t := range targets {
		if t.ClientID == id {
			return t
		}
	}
	require.Fail(f, "no target", id)
	return release.Target{}
}

// states writes the states of a task's targets, as "h000 succeeded, h001 pending".
func (f *fixture) states(task release.Task) string {
	f.Helper()
	targets, total, err := f.Targets(f.ctx(), task.ID, store.TargetFilter{})
	require.NoError(f, err)
	require.Len(f, targets, total)
	var words []string
	for _, t := range targets {
		words = append(words, t.ClientID+" "+string(t.State))
	}
	return strings.Join(words, ", ")
}

// runs writes what a host runs of a project, as "1.0 installed" or "1.0 failed (2.0)".
func (f *fixture) runs(project, id string) string {
	f.Helper()
	list, total, err := f.Installations(f.ctx(), store.InstallationFilter{Project: project, ClientID: id})
	require.NoError(f, err)
	require.Len(f, list, total)
	if total == 0 {
		return "nothing"
	}
	text := strings.TrimSpace(list[0].Version + " " + string(list[0].State))
	if list[0].Attempted != "" {
		text += " (" + list[0].Attempted + ")"
	}
	return text
}

// together runs n functions at the same time and gives their errors.
func together(n int, fn func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = fn(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}
