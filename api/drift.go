package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"golang.org/x/sync/errgroup"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

const (
	driftAnswer      = 20 * time.Second // that an agent may take to look at its host
	driftConcurrency = 256              // agents that are asked at the same time
	driftProjects    = 50               // asked for in one request
	maxDriftShown    = 1000             // hosts in a report
)

// DriftCheck says what to look at.
type DriftCheck struct {
	Project string          `json:"project,omitempty" doc:"Id or name; left out: all"`
	Targets release.Targets `json:"targets,omitempty" doc:"Left out: every host on which something is installed"`
	All     bool            `json:"all,omitempty" doc:"Show hosts without drift, too"`
}

// DriftReport is what hosts run, beside what they should.
type DriftReport struct {
	Checked     int                   `json:"checked" doc:"Installations that were looked at"`
	Unreachable int                   `json:"unreachable" doc:"Installations on agents that are not connected to this server, or did not answer"`
	Drifted     int                   `json:"drifted" doc:"Installations with a drift, those not included of which it could not be found out"`
	Counts      map[release.Drift]int `json:"counts" doc:"Of those that were looked at, by drift"`
	Hosts       []HostDrift           `json:"hosts" doc:"Those with a drift, or not reached; at most 1000"`
	DurationMS  int64                 `json:"duration_ms"`
}

// HostDrift is what a host runs of a project, beside what it should.
type HostDrift struct {
	release.Installation
	Reached bool             `json:"reached"`
	Drift   release.Drift    `json:"drift" enum:"none,version,missing,stopped,degraded,changed,unknown"`
	Reason  string           `json:"reason,omitempty" doc:"One line"`
	Running *release.Running `json:"running,omitempty" doc:"As the agent found it"`
}

func (s *server) registerDrift(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "check-drift", Method: http.MethodPost, Path: "/api/release/drift", Tags: []string{"installations"}, MaxBodyBytes: MaxTaskBody,
		Summary:     "Ask agents what runs, and tell where that differs from what was deployed",
		Description: "Nothing is changed on them. Only agents that are connected to this server are asked. What they report is kept with the installations, for previews.",
	}, func(ctx context.Context, in *struct{ Body DriftCheck }) (*reply[DriftReport], error) {
		report, err := s.checkDrift(ctx, in.Body)
		if err != nil {
			return nil, err
		}
		return replyWith(report), nil
	})
}

func (s *server) checkDrift(ctx context.Context, in DriftCheck) (DriftReport, error) {
	began := s.Now()
	wanted := store.InstallationFilter{Project: in.Project}
	if in.Project != "" {
		if _, err := s.Store.Project(ctx, in.Project); err != nil {
			return DriftReport{}, release.AsInvalid("project", err)
		}
	}
	if len(in.Targets.Clients) > 0 || in.Targets.Selector != "" {
		var err error
		if wanted.Clients, err = s.Store.ResolveTargets(ctx, in.Targets); err != nil {
			return DriftReport{}, err
		}
	}
	installations, _, err := s.Store.Installations(ctx, wanted)
	if err != nil {
		return DriftReport{}, err
	}
	slices.SortFunc(installations, func(a, b release.Installation) int {
		return cmp.Or(cmp.Compare(a.ClientID, b.ClientID), cmp.Compare(a.Project, b.Project))
	})
	found, err := s.lookAt(ctx, installations)
	if err != nil {
		return DriftReport{}, err
	}
	if err := s.keepRunning(ctx, found); err != nil {
		return DriftReport{}, err
	}
	report := DriftReport{Counts: map[release.Drift]int{}, Hosts: []HostDrift{}}
	for _, h := range found {
		switch {
		case !h.Reached:
			report.Unreachable++
		default:
			report.Checked++
			report.Counts[h.Drift]++
			if h.Drift != release.DriftNone && h.Drift != release.DriftUnknown {
				report.Drifted++
			}
		}
		if (in.All || h.Drift != release.DriftNone) && len(report.Hosts) < maxDriftShown {
			report.Hosts = append(report.Hosts, h)
		}
	}
	report.DurationMS = s.Now().Sub(began).Milliseconds()
	return report, nil
}

// keepRunning stores what agents reported; where they could not find it out, what they reported before stays.
func (s *server) keepRunning(ctx context.Context, found []HostDrift) error {
	var reported []release.Installation
	for _, h := range found {
		if h.Running == nil || h.Running.State == release.RunUnknown {
			continue
		}
		i := h.Installation
		i.Running = h.Running
		reported = append(reported, i)
	}
	return s.Store.RecordRunning(ctx, reported)
}

// lookAt asks the agents of installations, which are in the order of their clients.
func (s *server) lookAt(ctx context.Context, installations []release.Installation) ([]HostDrift, error) {
	found := make([]HostDrift, len(installations))
	deployed := newDeployed(s.Store)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(driftConcurrency)
	for begin := 0; begin < len(installations); {
		end := begin + 1
		for end < len(installations) && end-begin < driftProjects && installations[end].ClientID == installations[begin].ClientID {
			end++
		}
		some, into := installations[begin:end], found[begin:end]
		group.Go(func() error { return s.lookAtHost(ctx, deployed, some, into) })
		begin = end
	}
	return found, group.Wait()
}

func (s *server) lookAtHost(ctx context.Context, deployed *deployed, some []release.Installation, into []HostDrift) error {
	asked := &quicflowv1.Describe{}
	for _, i := range some {
		what, err := deployed.of(ctx, i)
		if err != nil {
			return err
		}
		asked.Projects = append(asked.Projects, what)
	}
	limited, cancel := context.WithTimeout(ctx, driftAnswer)
	defer cancel()
	response, err := s.Messages.Request(limited, some[0].ClientID, &quicflowv1.Request{Body: &quicflowv1.Request_Describe{Describe: asked}})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	outcome, why := judge(response, err)
	answers := response.GetDescribed().GetRunning()
	if outcome == MessageAnswered && len(answers) != len(some) {
		outcome, why = MessageFailed, "the agent's answer is incomplete"
	}
	for n, i := range some {
		into[n] = HostDrift{Installation: i, Drift: release.DriftUnknown, Reason: why, Reached: outcome == MessageAnswered || outcome == MessageFailed}
		if outcome != MessageAnswered {
			continue
		}
		running := new(release.Running)
		if err := json.Unmarshal(answers[n], running); err != nil {
			into[n].Reason = "the agent's answer cannot be read"
			continue
		}
		into[n].Running = running
		into[n].Drift, into[n].Reason = release.DriftOf(i, *running)
	}
	return nil
}

// deployed says to agents what was deployed. It is safe for concurrent use.
type deployed struct {
	store Store

	mu       sync.Mutex
	projects map[string]release.Project
	steps    map[string]*quicflowv1.DeployStep // by the configuration's id, or those of project and version
}

func newDeployed(store Store) *deployed {
	return &deployed{store: store, projects: map[string]release.Project{}, steps: map[string]*quicflowv1.DeployStep{}}
}

func (d *deployed) of(ctx context.Context, i release.Installation) (*quicflowv1.DescribeProject, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := cmp.Or(i.ConfigID, i.ProjectID+"/"+i.VersionID) // the project alone, of what was never installed in full
	what := &quicflowv1.DescribeProject{Project: i.Project, Deploy: d.steps[key]}
	if what.Deploy != nil {
		return what, nil
	}
	if i.ConfigID != "" {
		switch snapshot, err := d.store.Snapshot(ctx, i.ConfigID); {
		case err == nil:
			what.Deploy = &quicflowv1.DeployStep{Type: string(snapshot.Type), Config: snapshot.Config, ConfigId: snapshot.ID, Environment: snapshot.Environment}
			d.steps[key] = what.Deploy
			return what, nil
		case !errors.Is(err, release.ErrNotFound):
			return nil, err
		}
	}
	project, known := d.projects[i.ProjectID]
	if !known {
		var err error
		if project, err = d.store.Project(ctx, i.ProjectID); err != nil {
			return nil, err
		}
		d.projects[i.ProjectID] = project
	}
	var version release.Version
	if i.VersionID != "" {
		var err error
		if version, err = d.store.VersionByID(ctx, i.VersionID); err != nil && !errors.Is(err, release.ErrNotFound) {
			return nil, err
		}
	}
	config := release.Merge(project, version, release.Override{})
	text, err := config.JSON()
	if err != nil {
		return nil, err
	}
	what.Deploy = &quicflowv1.DeployStep{Type: string(project.Type), Config: text, ConfigId: i.ConfigID}
	d.steps[key] = what.Deploy
	return what, nil
}
