package release

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestProjectValidate(t *testing.T) {
	good := func() Project { return Project{Name: "payments", Type: TypeScript, Spec: Spec{Script: &ScriptSpec{}}} }
	p := good()
	require.NoError(t, p.Validate())
	for field, spoil := range map[string]func(*Project){
		"name":                       func(p *Project) { p.Name = "Payments!" },
		"type":                       func(p *Project) { p.Type = "rpm" },
		"script.work_dir":            func(p *Project) { p.Script.WorkDir = "here" },
		"script.interpreter":         func(p *Project) { p.Script.Interpreter = "sh\nrm" },
		"script.timeout":             func(p *Project) { p.Script.Timeout = Duration(MaxStepTimeout + 1) },
		"script.env":                 func(p *Project) { p.Script.Env = map[string]string{"1A": ""} },
		"script.env.QUICFLOW_TARGET": func(p *Project) { p.Script.Env = map[string]string{"QUICFLOW_TARGET": "x"} },
		"script.health":              func(p *Project) { p.Script.Health = &Health{HTTP: "http://a/", TCP: "a:1"} },
		"script.health.http":         func(p *Project) { p.Script.Health = &Health{HTTP: "ftp://a/"} },
		"script.health.tcp":          func(p *Project) { p.Script.Health = &Health{TCP: "a"} },
		"script.health.retries":      func(p *Project) { p.Script.Health = &Health{TCP: "a:1", Retries: -1} },
		"script.health.interval":     func(p *Project) { p.Script.Health = &Health{TCP: "a:1", Interval: Duration(maxHealthDuration + 1)} },
		"script":                     func(p *Project) { p.Script.PreScript = strings.Repeat("x", MaxScriptBytes+1) },
	} {
		p := good()
		spoil(&p)
		requireInvalid(t, field, p.Validate())
	}
	p = good()
	p.Script.Health = &Health{HTTP: "http://127.0.0.1:${PORT}/healthz"}
	require.NoError(t, p.Validate())
}

func TestVersionValidate(t *testing.T) {
	v := Version{Name: "1.0", Status: VersionActive, Spec: Spec{Script: &ScriptSpec{Install: "true"}}}
	require.NoError(t, v.ValidateFor(TypeScript))
	require.NoError(t, v.Deployable())
	v.Script.Install = ""
	requireInvalid(t, "script.install", v.ValidateFor(TypeScript))
	v.Script.Install = "tr\x00ue"
	requireInvalid(t, "script.install", v.ValidateFor(TypeScript))
	v.Script.Install, v.Script.WorkDir = "true", "/a\x00"
	requireInvalid(t, "script.work_dir", v.ValidateFor(TypeScript))
	v.Script.WorkDir, v.Status = "", "hot"
	requireInvalid(t, "status", v.ValidateFor(TypeScript))
	v.Status = VersionDraft
	requireInvalid(t, "version", v.Deployable())
	v.Name = "1 0"
	requireInvalid(t, "version", v.ValidateFor(TypeScript))
}

func TestTaskValidate(t *testing.T) {
	good := func() Task {
		return Task{Project: "p", Version: "1", Action: ActionDeploy, Targets: Targets{Selector: "*"}}
	}
	task := good()
	require.NoError(t, task.Validate())
	for field, spoil := range map[string]func(*Task){
		"project":                 func(t *Task) { t.Project = "" },
		"version":                 func(t *Task) { t.Version = "" },
		"action":                  func(t *Task) { t.Action = "explode" },
		"targets":                 func(t *Task) { t.Targets = Targets{} },
		"targets.selector":        func(t *Task) { t.Targets.Selector = "a=b,,c" },
		"targets.clients":         func(t *Task) { t.Targets.Clients = make([]string, MaxTargets+1) },
		"override.env":            func(t *Task) { t.Override.Env = map[string]string{"a b": ""} },
		"override.timeout":        func(t *Task) { t.Override.Timeout = Duration(MaxStepTimeout + 1) },
		"strategy.canary.percent": func(t *Task) { t.Strategy.Canary = &Canary{Percent: 120} },
	} {
		task := good()
		spoil(&task)
		requireInvalid(t, field, task.Validate())
	}
	task = good()
	task.Action = ActionUninstall
	requireInvalid(t, "version", task.Validate())
}

func TestStepID(t *testing.T) {
	id := StepID("0198", StepDeploy, "web-1.example", 2)
	task, name, client, epoch, err := ParseStepID(id)
	require.NoError(t, err)
	require.Equal(t, []any{"0198", StepDeploy, "web-1.example", 2}, []any{task, name, client, epoch})
	for _, bad := range []string{"", "a/b/c", "a/b/c/d", "a/b/c/1/2"} {
		_, _, _, _, err := ParseStepID(bad)
		require.Error(t, err, bad)
	}
}
