package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/pgtest"
)

// How many steps the chaos test has, on how many hosts, and what its dice start from. "make chaos" has many more.
const (
	chaosSteps = "QUICFLOW_CHAOS_STEPS"
	chaosHosts = "QUICFLOW_CHAOS_HOSTS"
	chaosSeed  = "QUICFLOW_CHAOS_SEED"
	chaosPause = "QUICFLOW_CHAOS_PAUSE" // the longest between two breaks, in seconds
)

const (
	chaosOpen  = 12               // jobs at a time
	chaosLimit = 10 * time.Minute // without a job that ends
)

func fromEnv(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, name)
	return n
}

// Batch jobs run while servers, agents and the database are killed and connections are cut, at random moments. Each host runs
// each job once, or the job says why that cannot be known; nothing that was printed is lost or doubled.
func TestChaos(t *testing.T) {
	for _, database := range []string{sqlite, postgres} {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			c := newChaos(t, database)
			c.run()
			c.check()
		})
	}
}

// chaos is a world that is broken again and again.
type chaos struct {
	t      *testing.T
	rand   *rand.Rand
	server *server
	sql    *pgtest.Server // nil on SQLite
	relay  *relay
	agents []*agent
	traces string // directory; a file for each host

	hosts  int
	jobs   int
	asked  int            // jobs that were asked for, answered or not
	breaks map[string]int // what was done how often
	heals  time.Time      // when the connections come back; zero while they are not cut
}

func newChaos(t *testing.T, database string) *chaos {
	seed := fromEnv(t, chaosSeed, int(time.Now().UnixNano()))
	t.Logf("%s=%d", chaosSeed, seed)
	c := &chaos{t: t, rand: rand.New(rand.NewPCG(uint64(seed), 1)), traces: t.TempDir(), breaks: map[string]int{}}
	c.hosts = fromEnv(t, chaosHosts, 10)
	c.jobs = max(1, fromEnv(t, chaosSteps, 2000)/2/c.hosts) // each database takes half
	settings := serverConfig{database: database}
	if database == postgres {
		sql, err := pgtest.Start(context.Background(), pgtest.Durable...)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, sql.Stop()) })
		c.sql, settings.dsn = sql, sql.Database(t)
	}
	c.server = startServer(t, settings)
	c.relay = startRelay(t, c.server.addr)
	c.agents = startAgentsVia(t, c.server, c.relay.addr, c.hosts)
	return c
}

// run asks for jobs and breaks things until all jobs have ended.
func (c *chaos) run() {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	open := map[string]bool{}
	pause := time.Duration(fromEnv(c.t, chaosPause, 2)) * time.Second
	began, progress := time.Now(), time.Now()
	done, next := 0, time.Now().Add(time.Second)
	for done < c.jobs {
		<-tick.C
		require.Less(c.t, time.Since(progress), chaosLimit, "no job ends any more; open are %v", open)
		c.mend()
		if now := time.Now(); now.After(next) {
			c.breakSomething()
			next = now.Add(200*time.Millisecond + time.Duration(c.rand.Int64N(int64(pause))))
		}
		if len(open) < min(chaosOpen, c.jobs-done) {
			if id := c.ask(); id != "" {
				open[id] = true
			}
		}
		for id := range open {
			if c.server.job(id).Status.Terminal() {
				delete(open, id)
				done++
				progress = time.Now()
			}
		}
	}
	c.t.Logf("%d jobs on %d hosts in %s; broken: %v", c.jobs, c.hosts, time.Since(began).Round(time.Second), c.breaks)
}

// ask asks for a job, each time under another tag: where no answer comes it may be there or not.
func (c *chaos) ask() (id string) {
	c.asked++
	tag := fmt.Sprintf("job-%d", c.asked)
	return c.server.shell(fmt.Sprintf("echo %s >> %s/$QUICFLOW_TARGET; echo printed %s", tag, c.traces, tag), nil)
}

// mend starts again what has ended, and joins what was cut.
func (c *chaos) mend() {
	if !c.heals.IsZero() && time.Now().After(c.heals) {
		c.heals = time.Time{}
		c.relay.cut.Store(false)
	}
	if !c.server.proc.running() {
		c.server.launch()
	}
	for _, a := range c.agents {
		if !a.proc.running() {
			a.start()
		}
	}
}

func (c *chaos) breakSomething() {
	what := []string{"agent killed", "agent killed", "connections cut", "server killed"}
	if c.sql != nil {
		what = append(what, "database killed")
	}
	choice := what[c.rand.IntN(len(what))]
	c.breaks[choice]++
	switch choice {
	case "agent killed":
		c.agents[c.rand.IntN(len(c.agents))].proc.kill9()
	case "connections cut":
		c.relay.cut.Store(true)
		c.heals = time.Now().Add(time.Duration(c.rand.Int64N(int64(4 * time.Second))))
	case "server killed":
		c.server.crash()
	case "database killed":
		require.NoError(c.t, c.sql.Crash())
		require.NoError(c.t, c.sql.Restart(context.Background()))
	}
}

// check compares what the server says of each job with what the hosts have done.
func (c *chaos) check() {
	c.relay.cut.Store(false)
	eventually(c.t, 2*time.Minute, "all stands again", func() (bool, any) {
		c.mend()
		code, body := c.server.call(http.MethodGet, "/ready", "")
		return code == http.StatusOK, body
	})
	ran := c.traced()
	states, lost, doubled, unexplained := map[job.State]int{}, 0, 0, 0
	for _, id := range c.allJobs() {
		j := c.server.finishJob(id, 2*time.Minute)
		tag := strings.Fields(j.Payload.Command)[1]
		hosts := c.server.jobHosts(id)
		require.Len(c.t, hosts, c.hosts)
		for _, h := range hosts {
			states[h.State]++
			times := ran[h.ClientID][tag]
			delete(ran[h.ClientID], tag)
			if times > 1 {
				doubled++
				c.t.Errorf("%s ran %s %d times: %+v", h.ClientID, tag, times, h)
			}
			switch h.State {
			case job.StateSucceeded:
				if times == 0 {
					lost++
					c.t.Errorf("%s did not run %s: %+v", h.ClientID, tag, h)
				}
			case job.StateUnknown:
				if h.Error == "" {
					unexplained++
					c.t.Errorf("%s says of %s that it is unknown, and not why", h.ClientID, tag)
				}
				c.t.Logf("unknown: %s %s: %s (it ran %d times)", h.ClientID, tag, h.Error, times)
			default:
				if times > 0 {
					lost++
					c.t.Errorf("%s ran %s, and that was lost: %+v", h.ClientID, tag, h)
				}
			}
		}
		c.checkLog(id, tag, hosts)
	}
	for host, tags := range ran {
		require.Empty(c.t, tags, "%s ran what is in no job", host)
	}
	steps := 0
	for _, n := range states {
		steps += n
	}
	c.t.Logf("%d host-steps: %v; %d doubled, %d lost, %d unexplained", steps, states, doubled, lost, unexplained)
}

// traced says how often each host ran each tag.
func (c *chaos) traced() map[string]map[string]int {
	ran := map[string]map[string]int{}
	for _, a := range c.agents {
		ran[a.id] = map[string]int{}
		text, err := os.ReadFile(filepath.Join(c.traces, a.id))
		require.NoError(c.t, err)
		for _, tag := range lines(string(text)) {
			ran[a.id][tag]++
		}
	}
	return ran
}

// allJobs gives the ids of all jobs, also of those whose making was never answered.
func (c *chaos) allJobs() (ids []string) {
	for {
		var page struct {
			Jobs  []batchJob `json:"jobs"`
			Total int        `json:"total"`
		}
		require.Equal(c.t, http.StatusOK, c.server.get(fmt.Sprintf("/api/batch/jobs?limit=1000&offset=%d", len(ids)), &page))
		for _, j := range page.Jobs {
			ids = append(ids, j.ID)
		}
		if len(page.Jobs) == 0 || len(ids) >= page.Total {
			return ids
		}
	}
}

// checkLog compares what hosts printed with what is stored.
func (c *chaos) checkLog(id, tag string, hosts []jobHost) {
	want := "printed " + tag + "\n"
	printed := map[string]string{}
	eventually(c.t, time.Minute, "the log of "+tag+" is complete", func() (bool, any) {
		clear(printed)
		for _, l := range c.server.historyOf("/api/batch/jobs/" + id + "/logs") {
			if l.Stream == "stdout" {
				require.Equal(c.t, len(printed[l.ClientID]), l.Offset, "a piece is lost or double")
				printed[l.ClientID] += l.Text
			}
		}
		for _, h := range hosts {
			if h.State == job.StateSucceeded && len(printed[h.ClientID]) < len(want) {
				return false, h
			}
		}
		return true, nil
	})
	for host, text := range printed {
		require.Equal(c.t, want, text, host)
	}
}
