package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/quicflow/quicflow/internal/release"
)

// describe tells the server what there is to release.
func (d *demo) describe(ctx context.Context) error {
	chapter("A project and two versions of it")
	for _, file := range []string{"project.yaml", "version-1.0.yaml", "version-2.0.yaml"} {
		text, err := os.ReadFile(filepath.Join(d.root, "examples", "hello", file))
		if err != nil {
			return err
		}
		// The example is installed from this repository's bin directory.
		rendered := strings.ReplaceAll(string(text), "/usr/local/bin/hello", d.bin("hello"))
		if err := os.WriteFile(d.path(file), []byte(rendered), 0o600); err != nil {
			return err
		}
		kind, _, _ := strings.Cut(strings.TrimSuffix(file, ".yaml"), "-")
		if err := d.ctl(ctx, kind, "create", "-f", filepath.Join(dataDir, file)); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) install(ctx context.Context) error {
	chapter("Version 1.0 goes onto all agents")
	if err := d.ctl(ctx, "task", "create", "--project", project, "--version", "1.0", "--selector", "*", "--wait"); err != nil {
		return err
	}
	return d.look(ctx, "1.0")
}

func (d *demo) release(ctx context.Context) error {
	chapter("Version 2.0 goes onto 2 of them, soaks for 5 s, then follows everywhere in two waves")
	create := []string{"task", "create", "--project", project, "--version", "2.0", "--selector", "*",
		"--canary", "20", "--soak", "5s", "--waves", "60,100", "--max-parallel", "4", "--on-failure", "rollback"}
	fmt.Println("$ quic-ctl", shown(create))
	out, err := d.ask(ctx, append(create, "-o", "json")...)
	if err != nil {
		return err
	}
	var task struct{ ID string }
	if err := json.Unmarshal([]byte(out), &task); err != nil {
		return fmt.Errorf("read the new task: %w", err)
	}
	if err := d.ctl(ctx, "task", "watch", task.ID, "--logs"); err != nil {
		return err
	}
	return d.look(ctx, "2.0")
}

// look asks the service on each agent for its version.
func (d *demo) look(ctx context.Context, version string) error {
	for _, id := range slices.Sorted(maps.Keys(d.ports)) {
		url := fmt.Sprintf("http://%s:%d/", loopback, d.ports[id])
		body, _, err := get(ctx, url)
		if err != nil {
			return fmt.Errorf("%s does not answer: %w", id, err)
		}
		if !strings.HasPrefix(body, project+" "+version) {
			return fmt.Errorf("%s at %s says %q, not %s %s", id, url, body, project, version)
		}
		d.seen[version]++
	}
	fmt.Printf("\"%s %s\" over HTTP from each of the %d agents\n", project, version, d.seen[version])
	return nil
}

// sum says what was seen and where to go from here.
func (d *demo) sum(ctx context.Context) error {
	chapter("Done in %s: %s 1.0 seen on %d agents, then 2.0 on %d", time.Since(d.began).Round(time.Second), project, d.seen["1.0"], d.seen["2.0"])
	if err := d.ctl(ctx, "installations", "--project", project); err != nil {
		return err
	}
	return nil
}

// invite says how to look around, and what to try.
func (d *demo) invite() {
	fmt.Printf(`
Console      http://%[1]s/
Temporal UI  http://%[1]s/temporal/
Log in with  %[2]s
             (the token in %[3]s)

To try next, in another terminal:
  %[4]s task create --project %[5]s --version 1.0 --selector 'id=demo-0[1-3]' --watch
  %[4]s installations --project %[5]s
  %[4]s task create --project %[5]s --uninstall --targets demo-10 --wait

Everything keeps running until Ctrl-C.
`, d.api, d.token(), filepath.Join(dataDir, "server", "admin.token"), "bin/quic-ctl --data-dir "+filepath.Join(dataDir, "server"), project)
}

// stop ends all that was started: rollouts, agents, server, and the service on each agent.
func (d *demo) stop() error {
	chapter("Stopping everything")
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	aborted := d.abortTasks(ctx)
	d.children.stopAll()
	return errors.Join(aborted, endServices(d.dir))
}

// abortTasks ends what is under way, so that no script starts a service after the services were stopped.
func (d *demo) abortTasks(ctx context.Context) error {
	if !d.children.running("quic-server") || d.token() == "" {
		return nil
	}
	unfinished := func() (ids []string) {
		out, err := d.ask(ctx, "task", "list", "-o", "json")
		var tasks []struct {
			ID     string
			Status release.Status
		}
		if err != nil || json.Unmarshal([]byte(out), &tasks) != nil {
			return nil // a server that is about to start has no tasks, one that is broken takes none
		}
		for _, t := range tasks {
			if !t.Status.Terminal() {
				ids = append(ids, t.ID)
			}
		}
		return ids
	}
	for _, id := range unfinished() {
		_, _ = d.ask(ctx, "task", "abort", id) // refused if it is ending already
	}
	return await(ctx, stopLimit, "the tasks have ended", func() bool { return len(unfinished()) == 0 })
}
