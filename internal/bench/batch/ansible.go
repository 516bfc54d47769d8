package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/quicflow/quicflow/internal/bench/rig"
)

// ansibleResult is one run of a command on all hosts.
type ansibleResult struct {
	Way   string        `json:"way"`
	Hosts int           `json:"hosts"`
	Round int           `json:"round"`
	Took  time.Duration `json:"took"`
	CPU   time.Duration `json:"machine_cpu"` // of all processes of the machine meanwhile
}

// way is a way to run a command on all hosts.
type way struct {
	name    string
	command func(ctx context.Context) *exec.Cmd
}

// ansible compares quic-ctl and real agents with Ansible and sshd, on the same machine, in turn.
func (b *bench) ansible(ctx context.Context) (err error) {
	ansible, err := exec.LookPath("ansible")
	if err != nil {
		return errors.New("ansible is not installed (Debian: ansible-core)")
	}
	version, err := exec.CommandContext(ctx, ansible, "--version").Output()
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(version), "\n")
	b.report.AnsibleVersion = first
	w, err := b.open(ctx, sqlite, 0)
	if err != nil {
		return err
	}
	var hosts group
	defer func() {
		hosts.stop()
		err = errors.Join(err, w.close())
	}()
	if err := b.startAgents(ctx, w, &hosts); err != nil {
		return fmt.Errorf("agents: %w", err)
	}
	ssh := &sshHosts{dir: filepath.Join(w.dir, "ssh")}
	if err := ssh.start(ctx, b.hosts, &hosts); err != nil {
		return fmt.Errorf("sshd: %w", err)
	}
	defer ssh.disconnect()
	run := func(module, argument string, more ...string) func(ctx context.Context) *exec.Cmd {
		return func(ctx context.Context) *exec.Cmd {
			arguments := []string{"all", "-i", ssh.inventory(), "-f", fmt.Sprint(b.hosts), "-m", module, "-a", argument}
			cmd := exec.CommandContext(ctx, ansible, arguments...)
			cmd.Dir = ssh.dir
			cmd.Env = append(os.Environ(), append([]string{"ANSIBLE_HOST_KEY_CHECKING=False", "ANSIBLE_NOCOLOR=1", "ANSIBLE_LOCAL_TEMP=" + filepath.Join(ssh.dir, "local"),
				"ANSIBLE_REMOTE_TEMP=" + filepath.Join(ssh.dir, "remote"), "ANSIBLE_SSH_CONTROL_PATH_DIR=" + ssh.sockets(), "ANSIBLE_PYTHON_INTERPRETER=/usr/bin/python3"}, more...)...)
			return cmd
		}
	}
	ways := []way{
		{"quic-ctl batch run", func(ctx context.Context) *exec.Cmd {
			return exec.CommandContext(ctx, b.ctl, "--data-dir", w.server.DataDir, "batch", "run", "--selector", "*", "--wait", "--", "true")
		}},
		{"ansible raw, new connections", run("raw", "true", "ANSIBLE_SSH_ARGS=-o ControlMaster=no")},
		{"ansible raw, kept connections", run("raw", "true")},
		{"ansible command, kept connections", run("command", "true")},
	}
	// Not counted: it opens the connections that are kept, and fills caches.
	for _, way := range ways {
		if _, err := b.time(ctx, way); err != nil {
			return err
		}
	}
	var all []ansibleResult
	for round := range b.rounds {
		for i := range ways {
			r, err := b.time(ctx, ways[(i+round)%len(ways)]) // none is always the first or the last
			if err != nil {
				return err
			}
			r.Round = round + 1
			all = append(all, r)
		}
	}
	b.report.Ansible = all
	b.printAnsible(ways, all)
	return nil
}

func (b *bench) printAnsible(ways []way, all []ansibleResult) {
	rig.Heading("The command true on %d hosts, real agents and sshd on this machine; %s", b.hosts, b.report.AnsibleVersion)
	fmt.Printf("%-36s", "")
	for round := range b.rounds {
		fmt.Printf(" %9s", fmt.Sprintf("round %d", round+1))
	}
	fmt.Printf(" %9s %9s %12s %9s\n", "median", "hosts/s", "machine CPU", "ratio")
	var ours time.Duration
	for _, way := range ways {
		var took, cpu []time.Duration
		fmt.Printf("%-36s", way.name)
		for _, r := range all {
			if r.Way == way.name {
				took, cpu = append(took, r.Took), append(cpu, r.CPU)
				fmt.Printf(" %9s", rig.Short(r.Took))
			}
		}
		median := rig.Median(took)
		if ours == 0 {
			ours = median
		}
		fmt.Printf(" %9s %9.1f %12s %9s\n", rig.Short(median), float64(b.hosts)/median.Seconds(), rig.Short(rig.Median(cpu)), rig.Ratio(float64(median), float64(ours)))
	}
}

// time runs a way once. What it printed is part of the error if it failed.
func (b *bench) time(ctx context.Context, w way) (r ansibleResult, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	before, err := rig.MachineCPU()
	if err != nil {
		return r, err
	}
	cmd := w.command(ctx)
	began := time.Now()
	output, err := cmd.CombinedOutput()
	r = ansibleResult{Way: w.name, Hosts: b.hosts, Took: time.Since(began)}
	if err != nil {
		return r, fmt.Errorf("%s: %w\n%s", w.name, err, bytes.TrimSpace(output[max(0, len(output)-2000):]))
	}
	after, err := rig.MachineCPU()
	r.CPU = after - before
	return r, err
}

// startAgents joins real agents to the server of a world and waits until all are online.
func (b *bench) startAgents(ctx context.Context, w *world, hosts *group) error {
	var token struct {
		Token string `json:"token"`
	}
	if err := w.server.Post(ctx, "/api/agent-tokens", fmt.Sprintf(`{"uses":%d,"ttl":"1h"}`, b.hosts), &token); err != nil {
		return err
	}
	for i := range b.hosts {
		id := hostName(i)
		cmd := exec.Command(b.client, "--server", w.server.QUIC, "--id", id, "--data-dir", filepath.Join(w.dir, "agents", id))
		cmd.Env = append(os.Environ(), "QUIC_JOIN_TOKEN="+token.Token)
		if err := hosts.start(cmd, filepath.Join(w.dir, id+".log")); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("not all agents came online"))
	defer cancel()
	return w.await(ctx, b.hosts)
}

func hostName(i int) string { return fmt.Sprintf("host-%03d", i) }

// sshHosts are sshd processes, each a host at a port of its own.
type sshHosts struct{ dir string }

func (s *sshHosts) inventory() string { return filepath.Join(s.dir, "inventory") }
func (s *sshHosts) sockets() string   { return filepath.Join(s.dir, "cp") }
func (s *sshHosts) userKey() string   { return filepath.Join(s.dir, "user") }

// start makes keys for n hosts and one user, who is ourselves, and starts the daemons.
func (s *sshHosts) start(ctx context.Context, n int, hosts *group) error {
	// sshd wants its own absolute path. Root's wants a directory for the part of it that has no privileges.
	sshd := "/usr/sbin/sshd"
	if _, err := os.Stat(sshd); err != nil {
		return errors.New("sshd is not installed (Debian: openssh-server)")
	}
	if os.Geteuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			return err
		}
	}
	me, err := user.Current()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.sockets(), 0o700); err != nil {
		return err
	}
	keys, keysCtx := errgroup.WithContext(ctx)
	keys.SetLimit(4)
	for _, path := range append([]string{s.userKey()}, s.hostKeys(n)...) {
		keys.Go(func() error {
			if output, err := exec.CommandContext(keysCtx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path).CombinedOutput(); err != nil {
				return fmt.Errorf("ssh-keygen: %w\n%s", err, output)
			}
			return nil
		})
	}
	if err := keys.Wait(); err != nil {
		return err
	}
	var inventory strings.Builder
	for i, key := range s.hostKeys(n) {
		address, err := rig.FreePort("tcp")
		if err != nil {
			return err
		}
		_, port, _ := net.SplitHostPort(address)
		cmd := exec.Command(sshd, "-D", "-e", "-f", os.DevNull, "-h", key)
		for _, option := range []string{
			"ListenAddress=127.0.0.1", "Port=" + port, "UsePAM=no", "PasswordAuthentication=no", "KbdInteractiveAuthentication=no",
			"PermitRootLogin=prohibit-password", "AuthorizedKeysFile=" + s.userKey() + ".pub", "StrictModes=no", "PidFile=none",
			"Subsystem=sftp internal-sftp", "LogLevel=ERROR", "UseDNS=no",
		} {
			cmd.Args = append(cmd.Args, "-o", option)
		}
		if err := hosts.start(cmd, filepath.Join(s.dir, hostName(i)+".log")); err != nil {
			return err
		}
		fmt.Fprintf(&inventory, "%s ansible_host=127.0.0.1 ansible_port=%s ansible_user=%s ansible_ssh_private_key_file=%s\n", hostName(i), port, me.Username, s.userKey())
		if err := answers(ctx, address); err != nil {
			return err
		}
	}
	return os.WriteFile(s.inventory(), []byte(inventory.String()), 0o600)
}

func (s *sshHosts) hostKeys(n int) (paths []string) {
	for i := range n {
		paths = append(paths, filepath.Join(s.dir, "key-"+hostName(i)))
	}
	return paths
}

// answers waits until a daemon takes connections.
func answers(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			return conn.Close()
		}
		if pause(ctx, 10*time.Millisecond) != nil {
			return err
		}
	}
}

// disconnect ends the connections that Ansible has ssh keep.
func (s *sshHosts) disconnect() {
	sockets, _ := filepath.Glob(filepath.Join(s.sockets(), "*"))
	for _, socket := range sockets {
		_ = exec.Command("ssh", "-o", "ControlPath="+socket, "-O", "exit", "any").Run()
	}
}

// group is processes that end together.
type group struct{ all []*exec.Cmd }

// start starts a process whose output goes to a file.
func (g *group) start(cmd *exec.Cmd, log string) error {
	file, err := os.Create(log)
	if err != nil {
		return err
	}
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us, who end them
	if err := cmd.Start(); err != nil {
		return err
	}
	g.all = append(g.all, cmd)
	return nil
}

// stop asks all to end, and then makes them.
func (g *group) stop() {
	for _, cmd := range g.all {
		_ = cmd.Process.Signal(syscall.SIGTERM)
	}
	timer := time.AfterFunc(10*time.Second, func() {
		for _, cmd := range g.all {
			_ = cmd.Process.Kill()
		}
	})
	defer timer.Stop()
	for _, cmd := range g.all {
		_ = cmd.Wait()
	}
}
