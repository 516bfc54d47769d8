package executor

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/quicflow/quicflow/agent/spool"
	"github.com/quicflow/quicflow/internal/durable"
	"github.com/quicflow/quicflow/internal/lazyregexp"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// NewStep makes a step of what an agent was asked for. Secrets are those that KeepSecrets left in the directory of log, which is
// the step's own. release.ErrInvalid: the request is wrong.
func NewStep(host Host, request *quicflowv1.StepRequest, log *spool.Writer) (*Step, error) {
	step := &Step{
		ID: request.StepId, TaskID: request.TaskId, Action: release.StepAction(request.Action),
		Project: request.Project, Version: request.Version, Previous: request.PreviousVersion,
		Host: host, NotAfter: time.UnixMilli(request.NotAfterUnixMs), Dir: filepath.Dir(log.Path()), Log: log,
	}
	if c := request.GetCommand(); c != nil {
		step.Command = c
		return step, nil
	}
	deploy := request.GetDeploy()
	config, err := readConfig(request, deploy)
	if err != nil {
		return nil, err
	}
	step.Config, step.ConfigID, step.Environment = config, deploy.GetConfigId(), deploy.GetEnvironment()
	step.Secrets, err = ReadSecrets(step.Dir)
	return step, err
}

func readConfig(request *quicflowv1.StepRequest, deploy *quicflowv1.DeployStep) (release.Merged, error) {
	if request.Project == "" || request.Project == "." || !filepath.IsLocal(request.Project) || strings.ContainsAny(request.Project, `/\`) {
		return release.Merged{}, release.Invalid("project", "%q is not the name of a project", request.Project)
	}
	return release.ParseConfig(release.Type(deploy.GetType()), deploy.GetConfig())
}

// Expanded gives a copy of the step with all variables of its configuration replaced: the host's and the secret ones, and those that
// a server knows, should it have left any.
func (s *Step) Expanded() (*Step, error) {
	if s.Command != nil {
		return s, nil
	}
	labels := s.labelVariables()
	config, err := s.Config.Expand(func(name string) (release.Value, bool) {
		if value, ok := s.Secrets[name]; ok {
			return release.Value{Text: value}, true
		}
		value, ok := map[string]string{
			release.VarRelease: s.TaskID, release.VarProject: s.Project, release.VarVersion: s.Version,
			release.VarEnvironment: s.Environment, release.VarTarget: s.Host.ClientID, release.VarPrevious: s.Previous,
		}[name]
		if !ok {
			value, ok = labels[name]
		}
		return release.Value{Text: value}, ok
	}, true)
	if err != nil {
		return nil, err
	}
	expanded := *s
	expanded.Config = config
	return &expanded, nil
}

var notInVariable = lazyregexp.New(`[^A-Z0-9_]`)

func (s *Step) labelVariables() map[string]string {
	variables := make(map[string]string, len(s.Host.Labels))
	for name, value := range s.Host.Labels {
		variables[release.VarLabel+notInVariable.ReplaceAllString(strings.ToUpper(name), "_")] = value
	}
	return variables
}

// Variables is what scripts and workloads of a step get: the env of its configuration and QUICFLOW_…, which goes before it. A
// command has no configuration and no more than the host's.
func (s *Step) Variables() map[string]string {
	env, _, _ := s.Config.Common()
	variables := maps.Clone(env)
	if variables == nil {
		variables = map[string]string{}
	}
	maps.Copy(variables, s.labelVariables())
	variables[release.VarTarget] = s.Host.ClientID
	if s.Command != nil {
		return variables
	}
	maps.Copy(variables, map[string]string{
		release.VarRelease: s.TaskID, release.VarProject: s.Project, release.VarVersion: s.Version, release.VarPrevious: s.Previous,
		release.VarEnvironment: s.Environment, "QUICFLOW_ACTION": string(s.Action),
	})
	return variables
}

// inherited are the variables that scripts get from the agent's own environment.
var inherited = []string{"HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER"}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// BaseVariables are what every script gets of the agent's own environment: nothing that could be a secret.
func BaseVariables() map[string]string {
	env := map[string]string{"HOME": "/", "LANG": "C.UTF-8", "PATH": defaultPath}
	for _, name := range inherited {
		if value := os.Getenv(name); value != "" {
			env[name] = value
		}
	}
	return env
}

// ProjectDir is where a step's project has its own below the agent's data directory.
func (s *Step) ProjectDir() string { return ProjectDir(s.Host, s.Project) }

// ProjectDir is where a project has its own below the agent's data directory.
func ProjectDir(host Host, project string) string {
	return filepath.Join(host.DataDir, "projects", project)
}

var reference = lazyregexp.New(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// ExpandHealth fills in a health check's defaults and replaces each ${NAME} in it by the variable's value. release.ErrInvalid: there
// is no such variable, or the result is no address.
func ExpandHealth(check release.Health, env map[string]string) (release.Health, error) {
	check = check.WithDefaults()
	var unknown error
	for _, text := range []*string{&check.HTTP, &check.TCP, &check.Exec} {
		*text = reference.ReplaceAllStringFunc(*text, func(ref string) string {
			value, ok := env[ref[2:len(ref)-1]]
			if !ok && unknown == nil {
				unknown = release.Invalid("health", "%s is not in the step's environment", ref)
			}
			return value
		})
	}
	switch {
	case unknown != nil:
		return check, unknown
	case check.HTTP != "":
		u, err := url.Parse(check.HTTP)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return check, release.Invalid("health.http", "%q is not an http or https URL", check.HTTP)
		}
	case check.TCP != "":
		if _, _, err := net.SplitHostPort(check.TCP); err != nil {
			return check, release.Invalid("health.tcp", "%q is not host:port", check.TCP)
		}
	}
	return check, nil
}

// secretsFile is in the step's directory.
const secretsFile = "secrets.json"

// KeepSecrets writes the values of a step's secret variables into a file of their own in its directory, durably. The agent removes it
// when the step's result is stored.
func KeepSecrets(dir string, secrets map[string]string) error {
	text, err := json.Marshal(secrets)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(dir, secretsFile), text, 0o600); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(dir))
}

// ReadSecrets gives what KeepSecrets left, nil if that was nothing.
func ReadSecrets(dir string) (map[string]string, error) {
	text, err := os.ReadFile(filepath.Join(dir, secretsFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the step's secrets: %w", err)
	}
	var secrets map[string]string
	if err := json.Unmarshal(text, &secrets); err != nil {
		return nil, fmt.Errorf("read the step's secrets: %w", err)
	}
	return secrets, nil
}

// Untouched says whether an executor has left nothing in a step's directory.
func Untouched(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	return len(entries) == 0 || len(entries) == 1 && entries[0].Name() == secretsFile
}
