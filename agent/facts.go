package agent

import (
	"context"
	"encoding/json"
	"hash/fnv"
	"maps"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

const (
	// MaxFacts bounds the facts of a host, in bytes of JSON. The longest lists are cut to hold it.
	MaxFacts = 16 << 10
	// factsInterval is how often the facts are looked at.
	factsInterval = 10 * time.Minute
	// factsTimeout bounds one look.
	factsTimeout = 30 * time.Second
	// factsWait bounds how long an agent waits for the first look before it connects.
	factsWait = 2 * time.Second
)

// Facts are what a server may select hosts by: what changes seldom, and nothing that changes by itself.
type Facts struct {
	Hostname            string            `json:"hostname"`
	OS                  string            `json:"os"` // GOOS
	Distribution        string            `json:"distribution,omitempty"`
	DistributionVersion string            `json:"distribution_version,omitempty"`
	Kernel              string            `json:"kernel,omitempty"`
	Arch                string            `json:"arch"`                     // GOARCH
	Virtualization      string            `json:"virtualization,omitempty"` // what the host is a guest of
	CPUs                int               `json:"cpus"`
	CPUModel            string            `json:"cpu_model,omitempty"`
	MemoryMB            uint64            `json:"memory_mb,omitempty"` // MiB
	Disks               []DiskFact        `json:"disks,omitempty"`
	Network             []NetworkFact     `json:"network,omitempty"`
	Labels              map[string]string `json:"labels,omitempty"`
	AgentVersion        string            `json:"agent_version"`
	Capabilities        []string          `json:"capabilities"` // types of command, "script", and "deploy." and each type in Deploy
	// Deploy are the deployment types that the host can carry out now.
	Deploy    []executor.Capability `json:"deploy,omitempty"`
	Truncated bool                  `json:"truncated,omitempty"` // lists were cut
}

// DiskFact is a file system on a device of the host.
type DiskFact struct {
	Mountpoint string `json:"mountpoint"`
	Device     string `json:"device"`
	Filesystem string `json:"filesystem"`
	SizeMB     uint64 `json:"size_mb"` // MiB
}

// NetworkFact is an interface that is up.
type NetworkFact struct {
	Name      string   `json:"name"`
	MAC       string   `json:"mac,omitempty"`
	Addresses []string `json:"addresses"`
}

// Prober is an Executor that finds out what the host can do now, in a stable order, and why it cannot do the rest.
type Prober interface {
	Executor
	Probe(ctx context.Context) (able []executor.Capability, unable map[release.Type]error)
}

const (
	// capabilityScript is that of an agent with an executor.
	capabilityScript = "script"
	// capabilityDeploy and a deployment type are that of an agent that can carry it out.
	capabilityDeploy = "deploy."
	// maxDetails bounds what is told of a deployment type's capability, in bytes of JSON. What is longer has no details.
	maxDetails = 1 << 10
)

// probe adds what the host can do now.
func (a *Agent) probe(ctx context.Context, f *Facts) {
	prober, ok := a.cfg.Executor.(Prober)
	if !ok {
		return
	}
	able, unable := prober.Probe(ctx)
	for t, err := range unable {
		a.cfg.Logger.Debug("this host cannot do deployments of a type", "type", t, "error", err)
	}
	for _, c := range able {
		if text, err := json.Marshal(c); err != nil || len(text) > maxDetails {
			c.Details = nil
		}
		c.Version = c.Version[:min(len(c.Version), maxDetails/4)]
		f.Deploy = append(f.Deploy, c)
		f.Capabilities = append(f.Capabilities, capabilityDeploy+string(c.Type))
	}
}

// CollectFacts gives what the agent would tell a server now, as JSON of at most MaxFacts bytes. The order of its fields is
// always the same.
func (a *Agent) CollectFacts(ctx context.Context) ([]byte, error) {
	var f Facts
	if a.cfg.Facts != nil {
		f = a.cfg.Facts(ctx)
	}
	if f.Hostname == "" {
		f.Hostname, _ = os.Hostname()
	}
	if f.CPUs == 0 {
		f.CPUs = runtime.NumCPU()
	}
	f.OS, f.Arch, f.AgentVersion = runtime.GOOS, runtime.GOARCH, a.cfg.Version
	f.Labels = maps.Clone(a.cfg.Labels)
	f.Capabilities = commandTypes(a.cfg, a.commands())
	if a.cfg.Executor != nil {
		f.Capabilities = append(f.Capabilities, capabilityScript)
		a.probe(ctx, &f)
		slices.Sort(f.Capabilities)
	}
	return f.encode()
}

// encode cuts lists until the rest fits.
func (f *Facts) encode() ([]byte, error) {
	for {
		text, err := json.Marshal(f)
		if err != nil || len(text) <= MaxFacts {
			return text, err
		}
		f.Truncated = true
		switch {
		case len(f.Network)+len(f.Disks) == 0 && len(f.Labels) > 0:
			f.Labels = nil // they are in the hello, too
		case len(f.Network)+len(f.Disks) == 0:
			f.Capabilities = f.Capabilities[:len(f.Capabilities)/2]
		case len(f.Network) >= len(f.Disks):
			f.Network = f.Network[:len(f.Network)/2]
		default:
			f.Disks = f.Disks[:len(f.Disks)/2]
		}
	}
}

// hashFacts is FNV-1a; never 0, which means "no facts".
func hashFacts(text []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(text)
	return max(h.Sum64(), 1)
}

// RefreshFacts looks at the host's facts soon, and tells the server if they have changed. It may be called at any time.
func (a *Agent) RefreshFacts() { wake(a.factsWanted) }

// keepFacts looks at the facts at once, which it tells by closing looked, and now and then until ctx ends.
func (a *Agent) keepFacts(ctx context.Context, looked chan<- struct{}) {
	ticker := time.NewTicker(a.cfg.FactsInterval)
	defer ticker.Stop()
	for first := true; ; first = false {
		if a.lookAtFacts(ctx) {
			if s := a.currentSession(); s != nil {
				s.sendFacts()
			}
		}
		if first {
			close(looked)
		}
		select {
		case <-ticker.C:
		case <-a.factsWanted:
		case <-ctx.Done():
			return
		}
	}
}

// lookAtFacts reports whether they have changed.
func (a *Agent) lookAtFacts(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, factsTimeout)
	defer cancel()
	text, err := a.CollectFacts(ctx)
	if ctx.Err() != nil || err != nil {
		a.cfg.Logger.Warn("facts of the host could not be collected", "error", err)
		return false
	}
	hash := hashFacts(text)
	a.mu.Lock()
	defer a.mu.Unlock()
	changed := a.facts.GetHash() != hash
	a.facts = &quicflowv1.Facts{Hash: hash, Json: text}
	return changed
}

func (a *Agent) currentFacts() *quicflowv1.Facts {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.facts
}

// sendFacts tells the hub. If it does not read at the moment, it asks at the next session.
func (s *session) sendFacts() {
	if facts := s.agent.currentFacts(); facts != nil {
		_ = s.send(&quicflowv1.ToHub{Body: &quicflowv1.ToHub_Facts{Facts: facts}})
	}
}
