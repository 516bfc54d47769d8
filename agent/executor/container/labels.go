package container

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/lazyregexp"
)

// The labels of containers that QuicFlow made. Those above are the user's.
const (
	labelPrefix  = "quicflow."
	labelManaged = labelPrefix + "managed" // true
	labelProject = labelPrefix + "project"
	labelVersion = labelPrefix + "version"
	labelStep    = labelPrefix + "step"    // that made it
	labelTask    = labelPrefix + "task"    // that made it
	labelConfig  = labelPrefix + "config"  // names the configuration
	labelTarget  = labelPrefix + "target"  // agent: several may share an engine
	labelName    = labelPrefix + "name"    // that it has while it is the project's current one
	labelRestart = labelPrefix + "restart" // its restart policy: a container that is kept for a rollback has none
)

// identity is what labels tell of a container.
type identity struct {
	project, version, step, task, config, target string
}

func identify(step *executor.Step) identity {
	return identity{
		project: step.Project, version: step.Version, step: step.ID, task: step.TaskID, config: step.ConfigID, target: step.Host.ClientID,
	}
}

func (id identity) labels(name string, restart container.RestartPolicy) map[string]string {
	return map[string]string{
		labelManaged: "true", labelProject: id.project, labelVersion: id.version, labelStep: id.step, labelTask: id.task,
		labelConfig: id.config, labelTarget: id.target, labelName: name, labelRestart: restartText(restart),
	}
}

func restartText(p container.RestartPolicy) string {
	if p.MaximumRetryCount > 0 {
		return string(p.Name) + ":" + strconv.Itoa(p.MaximumRetryCount)
	}
	return string(p.Name)
}

func restartPolicy(text string) container.RestartPolicy {
	name, retries, _ := strings.Cut(text, ":")
	p := container.RestartPolicy{Name: container.RestartPolicyMode(name)}
	p.MaximumRetryCount, _ = strconv.Atoi(retries)
	return p
}

// temporaryName is that of a step's container until it takes over.
func temporaryName(name, step string) string {
	sum := sha256.Sum256([]byte(step))
	return name + "-new-" + hex.EncodeToString(sum[:4])
}

var noName = lazyregexp.New(`[^a-zA-Z0-9_.-]+`)

// keptName is that of a container that was replaced.
func keptName(c *found) string {
	return fmt.Sprintf("%s-old-%s-%s", c.Config.Labels[labelName], noName.ReplaceAllString(c.Config.Labels[labelVersion], "-"), c.ID[:6])
}

// found is a container as the engine tells of it.
type found struct {
	container.InspectResponse
}

func (c *found) name() string          { return strings.TrimPrefix(c.Name, "/") }
func (c *found) label(n string) string { return c.Config.Labels[n] }

// inPlace says whether it is a project's current container, running or not, by its name.
func (c *found) inPlace() bool { return c.name() == c.label(labelName) }

// kept says whether it was replaced, and is kept for a rollback.
func (c *found) kept() bool { return c.name() == keptName(c) }

// current gives a project's current container, nil if there is none: the one in place, but one that runs before one that does not.
func current(all []*found) *found {
	var best *found
	rank := func(c *found) int {
		switch {
		case c == nil:
			return 0
		case c.inPlace() && c.State.Running:
			return 4
		case c.State.Running:
			return 3
		case c.inPlace():
			return 2
		case c.kept():
			return 0
		}
		return 1
	}
	for _, c := range all {
		if rank(c) > rank(best) {
			best = c
		}
	}
	return best
}
