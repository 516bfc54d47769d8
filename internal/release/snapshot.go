package release

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Snapshot is a configuration as a task deploys it: merged, and with its variables in it but those that are put in on the host. It
// never changes: a host that returns to it gets what it had, whatever became of its project and version.
type Snapshot struct {
	ID            string          `json:"config_id" doc:"Of its content: equal ids, equal configurations"`
	Type          Type            `json:"type" enum:"script,container,git,kubernetes"`
	ProjectID     string          `json:"-"`
	Project       string          `json:"project"`
	VersionID     string          `json:"version_id"`
	Version       string          `json:"version"`
	EnvironmentID string          `json:"-"`
	Environment   string          `json:"environment,omitempty"`
	Config        json.RawMessage `json:"config" doc:"The part of its type. Secrets are in it as ${NAME}"`
	Secrets       []string        `json:"secrets" doc:"Names of the secret variables that it refers to"`
	CreatedAt     time.Time       `json:"created_at"`
}

// NewSnapshot makes the snapshot of an expanded configuration. The names of what it belongs to are left to the caller.
func NewSnapshot(c Merged, projectID, versionID, environmentID string) (Snapshot, error) {
	text, err := c.JSON()
	if err != nil {
		return Snapshot{}, err
	}
	s := Snapshot{Type: c.Type, ProjectID: projectID, VersionID: versionID, EnvironmentID: environmentID, Config: text, Secrets: []string{}}
	for _, name := range c.References() {
		if !strings.HasPrefix(name, reservedEnvPrefix) {
			s.Secrets = append(s.Secrets, name)
		}
	}
	slices.Sort(s.Secrets)
	sum := sha256.New()
	for _, part := range []string{string(s.Type), projectID, versionID, environmentID} {
		fmt.Fprintf(sum, "%s\x00", part)
	}
	sum.Write(text)
	s.ID = hex.EncodeToString(sum.Sum(nil))
	return s, nil
}

// Merged gives the configuration. What a later program no longer knows of it is left out.
func (s *Snapshot) Merged() (Merged, error) {
	c := Merged{Type: s.Type}
	if err := c.Decode(s.Type, s.Config); err != nil {
		return c, fmt.Errorf("read configuration %s: %w", s.ID, err)
	}
	return c, nil
}

// Warnings tells what a configuration will hardly mean as it says.
func (c *Merged) Warnings() []string {
	var found []string
	plain := func(at, value string) {
		if value != "" && !hasReference(value) {
			found = append(found, fmt.Sprintf("%s.%s is readable to everyone who may read the project; put it into a secret variable and write ${NAME}", c.Type, at))
		}
	}
	registry := func(r *RegistryAuth) {
		if r != nil {
			plain("registry.password", r.Password)
		}
	}
	switch {
	case c.Container != nil:
		registry(c.Container.Registry)
	case c.Git != nil && c.Git.Auth != nil:
		plain("auth.password", c.Git.Auth.Password)
		plain("auth.ssh_key", c.Git.Auth.SSHKey)
	case c.Kubernetes != nil:
		k := c.Kubernetes
		registry(k.Registry)
		if k.Manifest != "" {
			for path := range c.Flat() {
				field, _, _ := strings.Cut(strings.NewReplacer("[", ".").Replace(path), ".")
				if slices.Contains(ofWorkload, field) {
					found = append(found, fmt.Sprintf("kubernetes.%s has no effect beside a manifest", field))
				}
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// ofWorkload are the fields of a workload that is generated.
var ofWorkload = []string{"kind", "name", "image", "image_tag", "pull_policy", "replicas", "command", "args", "env_from", "ports", "service", "volumes",
	"resources", "service_account", "node_selector", "tolerations", "host_network", "security", "liveness", "readiness", "startup", "max_surge",
	"max_unavailable", "recreate", "min_ready", "grace_period", "service_name", "claims", "history"}
