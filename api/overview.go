package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quicflow/quicflow/internal/job"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

const (
	overviewList   = 20 // of each kind
	overviewRecent = 24 * time.Hour
)

// Overview says at a glance whether anything is wrong.
type Overview struct {
	Agents       AgentCounts    `json:"agents"`
	Active       []release.Task `json:"active" doc:"Tasks that have not ended, the oldest first, at most 20"`
	ActiveTotal  int            `json:"active_total"`
	Failed       []release.Task `json:"failed" doc:"Tasks of the last 24 hours that ended otherwise than succeeded, the newest first, at most 20"`
	Finished     []release.Task `json:"finished" doc:"Tasks of the last 24 hours that succeeded, the newest first, at most 20"`
	Jobs         []BatchJob     `json:"jobs" doc:"Jobs that have not ended, the newest first, at most 20"`
	JobsTotal    int            `json:"jobs_total"`
	OfflineFirst []string       `json:"offline_first" doc:"The first 20 agents that are offline"`
}

// AgentCounts is how many agents are known, but for those that were revoked.
type AgentCounts struct {
	Total        int `json:"total"`
	Online       int `json:"online"`
	Reconnecting int `json:"reconnecting" doc:"Lost less than session.offline_grace ago"`
	Offline      int `json:"offline"`
}

func (s *server) registerOverview(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "overview", Method: http.MethodGet, Path: "/api/overview", Tags: []string{"overview"},
		Summary: "What is rolling out, what is failing, what is offline",
	}, func(ctx context.Context, _ *struct{}) (*reply[Overview], error) {
		o, err := s.overview(ctx)
		if err != nil {
			return nil, err
		}
		return replyWith(o), nil
	})
}

func (s *server) overview(ctx context.Context) (o Overview, err error) {
	fleet, err := s.Store.PreviewTargets(ctx, release.Targets{Selector: "*"}, 0)
	if err != nil {
		return o, err
	}
	o.Agents = AgentCounts{Total: fleet.Total, Online: fleet.Online, Reconnecting: fleet.Reconnecting, Offline: fleet.Offline}
	o.OfflineFirst = []string{}
	if o.Agents.Offline > 0 {
		away, _, err := s.Store.Clients(ctx, store.ClientFilter{Selector: "status=offline", Limit: overviewList})
		if err != nil {
			return o, err
		}
		for _, c := range away {
			o.OfflineFirst = append(o.OfflineFirst, c.ID)
		}
	}
	recent, err := s.Store.RecentTasks(ctx, s.Now().Add(-overviewRecent), overviewList)
	if err != nil {
		return o, err
	}
	o.ActiveTotal, o.Active, o.Failed, o.Finished = recent.ActiveTotal, list(recent.Active), list(recent.Failed), list(recent.Succeeded)
	o.Jobs = []BatchJob{}
	for _, status := range []job.Status{job.StatusStarting, job.StatusRunning, job.StatusPaused, job.StatusCancelling} {
		jobs, total, err := s.Store.Jobs(ctx, store.JobFilter{
			Kinds: []job.Kind{job.KindBatch, job.KindMulti, job.KindStream}, Status: status, Limit: overviewList - len(o.Jobs),
		})
		if err != nil {
			return o, err
		}
		o.JobsTotal += total
		for _, j := range jobs {
			if len(o.Jobs) < overviewList {
				o.Jobs = append(o.Jobs, batchJob(j, false))
			}
		}
	}
	return o, nil
}
