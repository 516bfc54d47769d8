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
	"strconv"
	"strings"
	"syscall"
	"time"
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
	out, err := d.ask(ctx, "task", "create", "--project", project, "--version", "2.0", "--selector", "*",
		"--canary", "20", "--soak", "5s", "--waves", "60,100", "--max-parallel", "4", "--on-failure", "rollback", "-o", "json")
	if err != nil {
		return err
	}
	fmt.Printf("$ quic-ctl task create --project %s --version 2.0 --selector '*' --canary 20 --soak 5s --waves 60,100 --max-parallel 4 --on-failure rollback\n", project)
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
	ctl := "bin/quic-ctl --data-dir " + filepath.Join(dataDir, "server")
	fmt.Printf(`
API          http://%[1]s/
Temporal UI  http://%[1]s/temporal/
Log in with  %[2]s
             (the token in %[3]s)

To try next, in another terminal:
  %[4]s task create --project %[5]s --version 1.0 --selector 'id=demo-0[1-3]' --watch
  %[4]s task list
  %[4]s task create --project %[5]s --uninstall --targets demo-10 --wait
`, d.api, d.token(), filepath.Join(dataDir, "server", "admin.token"), ctl, project)
	return nil
}

// stop ends all that was started: agents, server, and the service on each agent.
func (d *demo) stop() error {
	chapter("Stopping everything")
	d.children.stopAll()
	var errs []error
	files, err := filepath.Glob(d.path("agents", "*", "projects", project, "hello.pid"))
	errs = append(errs, err)
	for _, file := range files {
		errs = append(errs, end(file))
	}
	return errors.Join(errs...)
}

// end ends the process whose id is in a file, if it is still the one that was released.
func end(pidFile string) error {
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("%s: %w", pidFile, err)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("end process %d: %w", pid, err)
	}
	return nil
}
