package executor

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// describeTimeout bounds one look at a project.
const describeTimeout = 15 * time.Second

// Describe looks at what runs of a project. What cannot be found out is RunUnknown, with the reason.
func (s *Set) Describe(ctx context.Context, asked *quicflowv1.DescribeProject) Running {
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	t := release.Type(asked.GetDeploy().GetType())
	unknown := func(err error) Running {
		return Running{Project: asked.GetProject(), Type: t, State: RunUnknown, Reason: err.Error()}
	}
	x, what, err := s.deployed(asked)
	if err != nil {
		return unknown(err)
	}
	running, err := x.Describe(ctx, what)
	if err != nil {
		return unknown(err)
	}
	running.Project, running.Type = what.Project, t
	return running
}

// Logs writes the output of what runs of a project. See Executor.
func (s *Set) Logs(ctx context.Context, asked *quicflowv1.DescribeProject, options LogOptions, out io.Writer) error {
	x, what, err := s.deployed(asked)
	if err != nil {
		return err
	}
	return x.Logs(ctx, what, options, out)
}

// refsTimeout bounds the wait for a repository.
const refsTimeout = 30 * time.Second

// Refs lists the branches and tags of the repository of a git project.
func (s *Set) Refs(ctx context.Context, deploy *quicflowv1.DeployStep) ([]release.GitRef, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, refsTimeout, &TimedOut{refsTimeout})
	defer cancel()
	x, err := s.forType(deploy)
	if err != nil {
		return nil, err
	}
	lister, ok := x.(RefLister)
	if !ok {
		return nil, noRepository(x.Type())
	}
	step := &Step{Environment: deploy.GetEnvironment(), Host: s.host, Secrets: deploy.GetSecrets()}
	if step.Config, err = release.ParseConfig(release.Type(deploy.GetType()), deploy.GetConfig()); err != nil {
		return nil, err
	}
	if step, err = step.Expanded(); err != nil {
		return nil, err
	}
	if step.Config.Git == nil {
		return nil, noRepository(x.Type())
	}
	return lister.Refs(ctx, step.Config.Git)
}

func noRepository(t release.Type) error {
	return fmt.Errorf("%w: %s projects have no repository", ErrUnsupported, t)
}

func (s *Set) deployed(asked *quicflowv1.DescribeProject) (Executor, Deployed, error) {
	deploy := asked.GetDeploy()
	x, err := s.forType(deploy)
	if err != nil {
		return nil, Deployed{}, err
	}
	config, err := release.ParseConfig(release.Type(deploy.Type), deploy.Config)
	if err != nil {
		return nil, Deployed{}, err
	}
	// What is not this host's own, such as a secret, nobody needs to look at what runs.
	step := &Step{Project: asked.Project, Environment: deploy.Environment, Host: s.host}
	known := step.labelVariables()
	known[release.VarProject], known[release.VarEnvironment], known[release.VarTarget] = asked.Project, deploy.Environment, s.host.ClientID
	config, err = config.Expand(func(name string) (release.Value, bool) {
		value, ok := known[name]
		return release.Value{Text: value, Later: !ok}, true
	}, true)
	if err != nil {
		return nil, Deployed{}, err
	}
	return x, Deployed{Project: asked.Project, Config: config, ConfigID: deploy.ConfigId, Host: s.host}, nil
}
