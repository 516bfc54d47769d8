package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/api/apitest"
	"github.com/quicflow/quicflow/internal/apiclient"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

const shopFile = `kind: Version
project: shop
version: "2.0"
status: active
container:
  image_tag: "2.0"
  env: {LOG: info}
---
kind: Project
name: shop
description: sells
container:
  image: registry.example.com/team/shop
  registry: {username: ci, password: "${TOKEN}"}
  ports: [{container: 80, host: 8080}]
  pre_script: |
    echo one
    echo two
  resources: {memory: 64m, cpus: 0.5}
---
kind: Variable
project: shop
name: TOKEN
value: hunter2
secret: true
---
kind: Variable
project: shop
environment: prod
name: DB_HOST
value: db.example.com
---
kind: Environment
project: shop
name: prod
selector: env=prod
strategy: {canary: {percent: 10}, max_parallel: 5}
`

func quicCtlIn(t *testing.T, s *apitest.Server, in string, args ...string) result {
	t.Helper()
	var out, problems bytes.Buffer
	env := map[string]string{"QUICFLOW_SERVER": s.URL, "QUICFLOW_TOKEN": s.Token}
	code := run(context.Background(), terminal{in: strings.NewReader(in), out: &out, err: &problems}, func(name string) string { return env[name] }, args)
	return result{code, out.String(), problems.String()}
}

func TestApplyIsIdempotent(t *testing.T) {
	s := apitest.Start(t)
	name := file(t, shopFile)
	lines := func(result string) string {
		text := ""
		for _, of := range []string{"project/shop", "environment/shop/prod", "variable/shop/TOKEN", "variable/shop/prod/DB_HOST", "version/shop/2.0"} {
			text += of + " " + result + "\n"
		}
		return text
	}
	r := quicCtl(t, s, "apply", "-f", name, "--dry-run")
	require.Zero(t, r.code, r.err)
	require.Equal(t, lines("created (dry run)"), r.out)
	_, err := s.Store.Project(t.Context(), "shop")
	require.ErrorIs(t, err, release.ErrNotFound)

	for _, want := range []string{"created", "unchanged", "unchanged"} {
		r = quicCtl(t, s, "apply", "-f", name)
		require.Zero(t, r.code, r.err)
		require.Equal(t, lines(want), r.out)
	}
	r = quicCtl(t, s, "apply", "-f", name, "--dry-run", "-o", "json")
	require.Zero(t, r.code, r.err)
	var told []applied
	require.NoError(t, json.Unmarshal([]byte(r.out), &told))
	require.Equal(t, applied{Kind: "Variable", Project: "shop", Environment: "prod", Name: "DB_HOST", Result: "unchanged", DryRun: true}, told[3])

	// What differs is replaced as a whole, and nothing else.
	changed := strings.Replace(shopFile, "description: sells\n", "", 1)
	changed = strings.Replace(changed, "LOG: info", "LOG: debug", 1)
	changed = strings.Replace(changed, "status: active\n", "", 1)
	for range 2 {
		r = quicCtlIn(t, s, changed, "apply", "-f", "-", "--dry-run")
		require.Zero(t, r.code, r.err)
		require.Equal(t, "project/shop configured (dry run)\nenvironment/shop/prod unchanged (dry run)\nvariable/shop/TOKEN unchanged (dry run)\n"+
			"variable/shop/prod/DB_HOST unchanged (dry run)\nversion/shop/2.0 configured (dry run)\n", r.out)
	}
	r = quicCtlIn(t, s, changed, "apply", "-f", "-")
	require.Zero(t, r.code, r.err)
	p, err := s.Store.Project(t.Context(), "shop")
	require.NoError(t, err)
	require.Empty(t, p.Description)
	v, err := s.Store.Version(t.Context(), "shop", "2.0")
	require.NoError(t, err)
	require.Equal(t, release.VersionActive, v.Status, "left out, it stays")
	require.Equal(t, "debug", v.Container.Env["LOG"])

	// A directory, and what was exported: the same, without the secret's value.
	r = quicCtl(t, s, "export", "shop")
	require.Zero(t, r.code, r.err)
	require.NotContains(t, r.out, "hunter2")
	require.Contains(t, r.out, "kind: Project\nname: shop\ntype: container\n")
	require.Contains(t, r.out, "pre_script: |\n    echo one\n    echo two\n")
	require.Contains(t, r.out, "host: 8080\n")
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "shop.yaml"), []byte(r.out), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "README"), []byte("no"), 0o600))
	r = quicCtl(t, s, "apply", "-f", dir)
	require.Zero(t, r.code, r.err)
	require.Equal(t, lines("unchanged"), r.out)

	// On another server the secret is missing, and that is said.
	other := apitest.Start(t)
	r = quicCtl(t, other, "apply", "-f", dir)
	require.Equal(t, exitError, r.code)
	require.Contains(t, r.err, "variable/shop/TOKEN: ")
	require.Contains(t, r.err, "give the value of the secret; there is none yet")
	require.Contains(t, r.out, "version/shop/2.0 created")
	r = quicCtlIn(t, other, "hunter3\n", "variable", "set", "shop", "TOKEN", "--secret")
	require.Zero(t, r.code, r.err)
	require.Equal(t, "variable/shop/TOKEN created\n", r.out)
	r = quicCtl(t, other, "apply", "-f", dir)
	require.Zero(t, r.code, r.err)
	require.Equal(t, lines("unchanged"), r.out)
	first := quicCtl(t, s, "export", "shop", "-o", "json")
	second := quicCtl(t, other, "export", "shop", "-o", "json")
	require.JSONEq(t, first.out, second.out)
}

func TestApplyRefusesWrongFiles(t *testing.T) {
	s := apitest.Start(t)
	for text, want := range map[string]string{
		"kind: Projekt\nname: x\n":                            `file.yaml:1: kind: "Projekt" is none of Project, Environment, Variable, Version`,
		"name: x\n":                                           `kind: "" is none of`,
		"- kind: Project\n":                                   "file.yaml:1: want keys with values",
		"just text\n":                                         "file.yaml:1: want keys with values",
		"kind: Project\n":                                     "file.yaml:1: name: is required for a Project",
		"kind: Version\nversion: \"1\"\n":                     "project: is required for a Version",
		"kind: Version\nproject: x\nversion: 1.0\n":           `file.yaml:3: version: expected string; put it in quotes: "1"`,
		"kind: Project\nname: a/b\n":                          `name: "a/b" is no name`,
		"kind: Project\nname: x\n---\nkind: Project\nname: x": "file.yaml:4: project/x is in ",
		"kind: Project\nname: x\nscript:\n  instal: y\n":      "project/x: " + "FILE:4: script.instal: unknown key",
		"kind: Project\nname: x\ncontainer:\n  image: a:1\n":  "FILE:4: container.image: \"a:1\" has a tag; that is the image_tag",
		"kind: Variable\nproject: none\nname: A\nvalue: x\n":  `variable/none/A: project "none" does not exist`,
		"kind: Project\nname: x\nscript:\n  pre_script: \"" + strings.Repeat("x", 10<<20) + "\"\n": "file.yaml:1 takes 10.0 MiB; the limit is 1 MiB",
		"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n" +
			"e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nkind: Project\nname: x\n": "excessive aliasing",
	} {
		name := file(t, text)
		r := quicCtl(t, s, "apply", "-f", name)
		require.Equal(t, exitError, r.code, "%.100s", text)
		require.Contains(t, r.err, strings.ReplaceAll(want, "FILE", name), "%.100s", text)
		require.Less(t, len(r.err), 1000)
		require.Empty(t, r.out)
	}
	_, total, err := s.Store.Tasks(t.Context(), store.TaskFilter{})
	require.NoError(t, err)
	require.Zero(t, total)
	require.Equal(t, exitUsage, quicCtl(t, s, "apply").code)
	require.Equal(t, exitError, quicCtl(t, s, "apply", "-f", t.TempDir()).code)
	require.Equal(t, exitError, quicCtl(t, s, "apply", "-f", "/nowhere").code)
}

// What one thing has wrong does not hold up the others, but those below it.
func TestApplyGoesOn(t *testing.T) {
	s := apitest.Start(t)
	r := quicCtl(t, s, "apply", "-f", file(t, `{kind: Project, name: Bad}
---
{kind: Variable, project: Bad, name: A, value: x}
---
{kind: Project, name: good}
---
{kind: Variable, project: good, name: A, value: x}
`))
	require.Equal(t, exitError, r.code)
	require.Equal(t, "project/good created\nvariable/good/A created\n", r.out)
	require.Contains(t, r.err, "project/Bad: ")
	require.Contains(t, r.err, "variable/Bad/A: left out, as what it belongs to could not be applied")
}

// editor gives a program that replaces text in the file that it is to edit.
func editor(t *testing.T, from, to string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "editor")
	require.NoError(t, os.WriteFile(name, []byte("#!/bin/sh\nsed -i 's/"+from+"/"+to+"/' \"$1\"\n"), 0o700))
	return name
}

func TestManageByHand(t *testing.T) {
	s := apitest.Start(t)
	clients := s.AddClients(1, map[string]string{"env": "prod"})
	s.CanDeploy(clients...)
	require.Zero(t, quicCtl(t, s, "apply", "-f", file(t, shopFile)).code)
	r := quicCtl(t, s, "environment", "create", "-f", file(t, "project: shop\nname: dev\nselector: env=dev\n"))
	require.Zero(t, r.code, r.err)
	for _, args := range []string{"project list --search sho", "project list --type container", "project get shop", "environment list shop", "environment get shop dev", "variable list shop",
		"variable list shop --environment prod", "variable get shop DB_HOST --environment prod", "version list shop --status active", "version get shop 2.0",
		"task preview --project shop --version 2.0 --environment prod"} {
		for _, format := range []string{"table", "json", "yaml"} {
			r := quicCtl(t, s, append(strings.Fields(args), "-o", format)...)
			require.Zero(t, r.code, "%v: %s", args, r.err)
			require.NotEmpty(t, r.out, "%v", args)
			require.NotContains(t, r.out, "hunter2")
		}
	}
	r = quicCtl(t, s, "version", "get", "shop", "2.0", "-o", "yaml")
	require.Equal(t, "kind: Version\nproject: shop\nversion: \"2.0\"\nstatus: active\ncontainer:\n  env:\n    LOG: info\n  image_tag: \"2.0\"\n", r.out)
	r = quicCtl(t, s, "task", "preview", "--project", "shop", "--version", "2.0", "--environment", "prod")
	require.Contains(t, r.out, "${TOKEN}")
	require.Contains(t, r.out, "1 host: canary 1")

	edit := func(from, to string, args ...string) result {
		return quicCtlWith(t, map[string]string{"QUICFLOW_SERVER": s.URL, "QUICFLOW_TOKEN": s.Token, "EDITOR": editor(t, from, to)}, args...)
	}
	r = edit("sells", "buys", "project", "edit", "shop")
	require.Zero(t, r.code, r.err)
	require.Equal(t, "project/shop configured\n", r.out)
	r = edit("nothing", "x", "project", "edit", "shop")
	require.Equal(t, "project/shop unchanged\n", r.out)
	r = edit("LOG: info", "LOG: warn", "version", "edit", "shop", "2.0")
	require.Equal(t, "version/shop/2.0 configured\n", r.out+r.err)
	r = edit("env=dev", "=x", "environment", "edit", "shop", "dev")
	require.Equal(t, exitError, r.code)
	require.Contains(t, r.err, "selector: ")
	require.Contains(t, r.err, "Your text is kept in ")

	r = quicCtl(t, s, "variable", "set", "shop", "X", "1")
	require.Equal(t, "variable/shop/X created\n", r.out+r.err)
	r = quicCtl(t, s, "variable", "set", "shop", "X", "1")
	require.Equal(t, "variable/shop/X unchanged\n", r.out+r.err)
	r = quicCtl(t, s, "variable", "set", "shop", "X", "2")
	require.Equal(t, "variable/shop/X configured\n", r.out+r.err)
	r = quicCtl(t, s, "variable", "set", "shop", "X", "2", "--secret")
	require.Equal(t, exitUsage, r.code, "others could see it")
	r = quicCtl(t, s, "variable", "delete", "shop", "X")
	require.Equal(t, "variable/shop/X deleted\n", r.out+r.err)
	r = quicCtl(t, s, "environment", "delete", "shop", "dev")
	require.Equal(t, "environment/shop/dev deleted\n", r.out+r.err)

	r = quicCtl(t, s, "task", "create", "--project", "shop", "--version", "2.0", "--environment", "prod", "-o", "json")
	require.Zero(t, r.code, r.err)
	var task apiclient.Task
	require.NoError(t, json.Unmarshal([]byte(r.out), &task))
	require.Equal(t, "prod", task.Environment)
	require.EqualValues(t, 5, task.Strategy.MaxParallel)
	require.Len(t, clients, int(task.Counts.Total))
	r = quicCtl(t, s, "version", "delete", "shop", "2.0")
	require.Equal(t, exitError, r.code)
	require.Contains(t, r.err, "version 2.0 of shop is in use: task "+task.ID)
	r = quicCtl(t, s, "project", "delete", "shop")
	require.Contains(t, r.err, "project shop is in use")
	r = quicCtl(t, s, "project", "get", "none")
	require.Contains(t, r.err, `project "none" does not exist`)
	r = quicCtl(t, s, "version", "get", "shop", "9")
	require.Contains(t, r.err, "project shop has no version 9")
}

func TestCompletionOfManagedThings(t *testing.T) {
	s := apitest.Start(t)
	require.Zero(t, quicCtl(t, s, "apply", "-f", file(t, shopFile)).code)
	for args, want := range map[string]string{
		"project get ":          "shop\n",
		"version get shop ":     "2.0\tactive\n",
		"environment get shop ": "prod\n",
	} {
		r := quicCtl(t, s, append([]string{"__complete"}, strings.Split(args, " ")...)...)
		require.Contains(t, r.out, want, args)
	}
}

// A preview says where hosts do not run what was deployed there, as their agents reported last.
func TestPreviewTellsDrift(t *testing.T) {
	s := apitest.Start(t)
	clients := s.AddClients(4, nil)
	task := s.AddTask(s.AddVersion("hello", "1.0"), clients...)
	s.AddVersion("hello", "2.0")
	for _, id := range clients {
		s.Finish(task.ID, id, release.StepSucceeded, "", 0)
	}
	s.Progress(task.ID, release.StatusSucceeded, release.PhaseDone)
	found, _, err := s.Store.Installations(t.Context(), store.InstallationFilter{})
	require.NoError(t, err)
	for i, running := range []release.Running{
		{State: release.RunOK, Version: "1.0"}, {State: release.RunStopped}, {State: release.RunOK, Version: "0.9"}, {State: release.RunMissing},
	} {
		found[i].Running = &running
	}
	require.NoError(t, s.Store.RecordRunning(t.Context(), found))
	r := quicCtl(t, s, "preview", "--project", "hello", "--version", "2.0", "--selector", "*")
	require.Zero(t, r.code, r.err)
	for _, line := range []string{
		"1  update from 1.0   client-1\n", "1  update from 1.0 (stopped)   client-2\n", "1  update from 1.0 (0.9 runs)   client-3\n", "1  update from 1.0 (missing)   client-4\n",
	} {
		require.Contains(t, r.out, line)
	}
}
