package api

import (
	"cmp"
	"context"
	"math"
	"net/http"
	"runtime"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/quicflow/quicflow/internal/store"
	"github.com/quicflow/quicflow/internal/telemetry"
)

// SystemConfig is what only the program knows of itself.
type SystemConfig struct {
	// NodeID is this server's among those that share a database. Defaults to "".
	NodeID string
	// Started is when the server did. Defaults to the zero time, which is left out.
	Started time.Time
	// HubAddr is where agents connect, SessionsMax how many may. Default to what is left out.
	HubAddr     string
	SessionsMax int
	// TemporalVersion is of the built-in server, "" with one of one's own, which TemporalAddr is the address of.
	TemporalVersion, TemporalAddr string
	// Disk gives the bytes of the disk of the data directory. Defaults to none.
	Disk func() (free, size uint64, err error)
	// Samples gives the figures of the last hour, the oldest first. Defaults to none.
	Samples func() []telemetry.Sample
}

func (c SystemConfig) withDefaults() SystemConfig {
	if c.Disk == nil {
		c.Disk = func() (uint64, uint64, error) { return 0, 0, nil }
	}
	if c.Samples == nil {
		c.Samples = func() []telemetry.Sample { return nil }
	}
	return c
}

// System is what the server consists of, part by part. Whether the parts work, ServerHealth tells.
type System struct {
	Server   SystemServer    `json:"server"`
	Hubs     []SystemHub     `json:"hubs" doc:"With sessions of agents, and this server's; by id"`
	Agents   []AgentVersion  `json:"agents" doc:"By version, the most frequent first"`
	Database SystemDatabase  `json:"database"`
	Temporal SystemTemporal  `json:"temporal"`
	Disk     *SystemDisk     `json:"disk,omitempty"`
	Figures  []SystemFigures `json:"figures" doc:"Of this server in the last hour, every 10 s, the oldest first"`
}

// SystemServer is the process that answers.
type SystemServer struct {
	NodeID    string     `json:"node_id"`
	Version   string     `json:"version"`
	GoVersion string     `json:"go_version"`
	OS        string     `json:"os"`
	Arch      string     `json:"arch"`
	CPUs      int        `json:"cpus"`
	StartedAt *time.Time `json:"started_at,omitempty"`
}

// SystemHub is where agents have their sessions.
type SystemHub struct {
	NodeID      string `json:"node_id"`
	This        bool   `json:"this" doc:"The hub of the server that answers"`
	Address     string `json:"address,omitempty" doc:"Of this server's hub: UDP"`
	Sessions    int    `json:"sessions"`
	SessionsMax int    `json:"sessions_max,omitempty" doc:"Of this server's hub"`
}

// AgentVersion is how many agents run a version.
type AgentVersion struct {
	Version string `json:"version" doc:"Empty of those that never told"`
	Agents  int    `json:"agents"`
	Online  int    `json:"online"`
}

// SystemDatabase is what keeps everything.
type SystemDatabase struct {
	Kind          string `json:"kind" enum:"sqlite,postgres"`
	Version       string `json:"version"`
	Bytes         int64  `json:"bytes" doc:"On disk; of SQLite without its journal"`
	LogBytes      int64  `json:"log_bytes" doc:"Of output that is kept"`
	Artifacts     int    `json:"artifacts"`
	ArtifactBytes int64  `json:"artifact_bytes" doc:"Of artifacts, which are beside the database"`
}

// SystemTemporal is what carries releases and jobs on.
type SystemTemporal struct {
	BuiltIn   bool   `json:"built_in"`
	Version   string `json:"version,omitempty" doc:"Of the built-in one"`
	Address   string `json:"address,omitempty" doc:"Of one that is not built in"`
	Namespace string `json:"namespace"`
}

// SystemDisk is the disk of the data directory.
type SystemDisk struct {
	Free uint64 `json:"free" doc:"Bytes"`
	Size uint64 `json:"size" doc:"Bytes"`
}

// SystemFigures is what the server was and did at a time.
type SystemFigures struct {
	At           time.Time `json:"at"`
	Agents       int       `json:"agents" doc:"With a session at this hub"`
	Reconnecting int       `json:"reconnecting"`
	Messages     float64   `json:"messages" doc:"Between hub and agents, a second"`
	Requests     float64   `json:"requests" doc:"To agents that await an answer, a second"`
	LatencyP50   float64   `json:"latency_p50" doc:"ms from a request to its answer"`
	LatencyP99   float64   `json:"latency_p99" doc:"ms"`
	Steps        float64   `json:"steps" doc:"Of releases that were settled, a second"`
	Commands     float64   `json:"commands" doc:"Hosts whose command was settled, a second"`
	LogBytes     float64   `json:"log_bytes" doc:"Stored, a second"`
	Memory       int64     `json:"memory" doc:"Bytes of the process"`
	CPU          float64   `json:"cpu" doc:"Cores that were busy"`
}

func (s *server) registerSystem(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "system", Method: http.MethodGet, Path: "/api/system", Tags: []string{"system"},
		Summary: "What the server consists of, with its figures of the last hour",
	}, func(ctx context.Context, _ *struct{}) (*reply[System], error) {
		system, err := s.system(ctx)
		if err != nil {
			return nil, err
		}
		return replyWith(system), nil
	})
}

func (s *server) system(ctx context.Context) (System, error) {
	c := s.System
	answer := System{
		Server: SystemServer{NodeID: c.NodeID, Version: s.Version, GoVersion: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.NumCPU()},
		Temporal: SystemTemporal{
			BuiltIn: c.TemporalAddr == "", Version: c.TemporalVersion, Address: c.TemporalAddr, Namespace: s.TemporalNamespace,
		},
		Figures: figures(c.Samples()),
	}
	if !c.Started.IsZero() {
		answer.Server.StartedAt = &c.Started
	}
	groups, err := s.Store.AgentGroups(ctx)
	if err != nil {
		return answer, err
	}
	answer.Hubs, answer.Agents = hubs(groups, c), agentVersions(groups)
	kept, err := s.Store.Figures(ctx)
	if err != nil {
		return answer, err
	}
	answer.Database = SystemDatabase{
		Kind: string(kept.Driver), Version: kept.Version, Bytes: kept.Bytes, LogBytes: kept.LogBytes, Artifacts: kept.Artifacts, ArtifactBytes: kept.ArtifactBytes,
	}
	if free, size, err := c.Disk(); err != nil {
		s.Logger.WarnContext(ctx, "room of the data directory unknown", "error", err)
	} else if size > 0 {
		answer.Disk = &SystemDisk{Free: free, Size: size}
	}
	return answer, nil
}

// hubs sums up groups by hub; this server's is there without sessions, too.
func hubs(groups []store.AgentGroup, c SystemConfig) []SystemHub {
	all := []SystemHub{{NodeID: c.NodeID, This: true, Address: c.HubAddr, SessionsMax: c.SessionsMax}}
	for _, g := range groups {
		if g.NodeID == "" {
			continue
		}
		i := slices.IndexFunc(all, func(h SystemHub) bool { return h.NodeID == g.NodeID })
		if i < 0 {
			i = len(all)
			all = append(all, SystemHub{NodeID: g.NodeID})
		}
		all[i].Sessions += g.Agents
	}
	slices.SortFunc(all, func(a, b SystemHub) int { return cmp.Compare(a.NodeID, b.NodeID) })
	return all
}

func agentVersions(groups []store.AgentGroup) []AgentVersion {
	all := []AgentVersion{}
	for _, g := range groups {
		i := slices.IndexFunc(all, func(v AgentVersion) bool { return v.Version == g.Version })
		if i < 0 {
			i = len(all)
			all = append(all, AgentVersion{Version: g.Version})
		}
		all[i].Agents += g.Agents
		if g.NodeID != "" {
			all[i].Online += g.Agents
		}
	}
	slices.SortFunc(all, func(a, b AgentVersion) int { return cmp.Or(b.Agents-a.Agents, cmp.Compare(b.Version, a.Version)) })
	return all
}

// figures rounds what nobody reads to the last digit.
func figures(samples []telemetry.Sample) []SystemFigures {
	round := func(v float64) float64 { return math.Round(v*100) / 100 }
	all := make([]SystemFigures, len(samples))
	for i, x := range samples {
		all[i] = SystemFigures{
			At: x.At.UTC().Truncate(time.Second), Agents: int(x.Agents), Reconnecting: int(x.Reconnecting), Messages: round(x.Messages), Requests: round(x.Requests),
			LatencyP50: round(x.LatencyP50), LatencyP99: round(x.LatencyP99), Steps: round(x.Steps), Commands: round(x.Commands),
			LogBytes: math.Round(x.LogBytes), Memory: int64(x.Memory), CPU: round(x.CPU),
		}
	}
	return all
}
