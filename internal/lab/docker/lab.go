//go:build linux

package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"
	"golang.org/x/crypto/bcrypt"
)

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 15 * time.Second // until what is asked to end is killed
	slots        = 64               // labs at a time on one machine
	poll         = 20 * time.Millisecond
)

// The addresses of the registries, within the lab's network, and what they hold.
const (
	Registry     = "127.0.0.1:5000" // takes anyone
	AuthRegistry = "127.0.0.1:5001" // holds the same images, and wants User and Password
	User         = "lab"
	Password     = "correct horse"

	// App is the repository of a web server that answers with its tag. Healthy is a check of it from within; the server of the tag
	// "sick" answers, but never passes it, and that of "crash" ends at once with exit code 3.
	App = "team/app"
	// Port that the server of App listens at.
	Port = 8080
)

// Healthy is a health check of App, from within a container.
var Healthy = []string{"/bin/busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/index.html"}

// Tags of App.
var Tags = []string{"v1", "v2", "v3", "sick", "crash"}

// Lab is a running engine with its registries.
type Lab struct {
	Dir     string // all that it stores
	Host    string // of the engine: unix://…
	Address string // of the lab's network, as seen from the host

	slot      int
	namespace string
	lock      *os.File
	processes []*process // some may have ended
	engine    *process
}

type process struct {
	*exec.Cmd
	ended chan struct{}
}

// Options of a lab.
type Options struct {
	DiskBytes int64 // size of the engine's disk; 0: that of the host
	Images    *Lab  // whose images the registries serve; nil: their own
}

// Start starts a lab with the images of App in its registries.
func Start(ctx context.Context, o Options) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("a Docker engine needs root")
	}
	for _, program := range []string{"dockerd", "docker-registry", "nsenter", "ip", "iptables", "busybox"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w; scripts/install-deps.sh installs it", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	l, err := take()
	if err != nil {
		return nil, err
	}
	l.sweep()
	if err := l.start(ctx, o); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// take finds a slot that no living process has. The lock goes with the process, however it ends.
func take() (*Lab, error) {
	for slot := range slots {
		base := filepath.Join(os.TempDir(), fmt.Sprintf("quicflow-docker-%d", slot))
		lock, err := os.OpenFile(base+".lock", os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, fmt.Errorf("take a slot for a Docker engine: %w", err)
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
			lock.Close()
			continue
		}
		return &Lab{
			Dir: base, Host: "unix://" + filepath.Join(base, "engine.sock"), Address: fmt.Sprintf("10.213.%d.2", slot),
			slot: slot, namespace: fmt.Sprintf("qfdocker%d", slot), lock: lock,
		}, nil
	}
	return nil, fmt.Errorf("all %d slots for Docker engines are taken", slots)
}

func (l *Lab) start(ctx context.Context, o Options) error {
	if err := os.MkdirAll(filepath.Join(l.Dir, "bin"), 0o700); err != nil {
		return fmt.Errorf("make the lab's directory: %w", err)
	}
	host := fmt.Sprintf("10.213.%d.1", l.slot)
	for _, line := range []string{
		"netns add NS",
		"link add NS type veth peer name eth0 netns NS",
		"addr add " + host + "/30 dev NS",
		"link set NS up",
		"-n NS addr add " + l.Address + "/30 dev eth0",
		"-n NS link set eth0 up",
		"-n NS link set lo up",
		"-n NS route add default via " + host,
	} {
		args := strings.Fields(strings.ReplaceAll(line, "NS", l.namespace))
		if out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
		}
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(Password), bcrypt.MinCost)
	if err != nil {
		return fmt.Errorf("make the registry's password: %w", err)
	}
	images := filepath.Join(l.Dir, "registry")
	if o.Images != nil {
		images = filepath.Join(o.Images.Dir, "registry")
	}
	storage := "version: 0.1\nstorage: {filesystem: {rootdirectory: " + images + "}, delete: {enabled: true}}\n"
	for name, text := range map[string]string{
		"daemon.json":   "{}\n", // not the host's
		"htpasswd":      User + ":" + string(hash) + "\n",
		"registry.yml":  storage + "http: {addr: " + Registry + "}\n",
		"protected.yml": storage + "http: {addr: " + AuthRegistry + "}\nauth: {htpasswd: {realm: lab, path: " + filepath.Join(l.Dir, "htpasswd") + "}}\n",
		// With this hook in its PATH, an engine offers GPUs.
		"bin/nvidia-container-runtime-hook": "#!/bin/sh\nexit 0\n",
	} {
		if err := os.WriteFile(filepath.Join(l.Dir, name), []byte(text), 0o700); err != nil {
			return fmt.Errorf("write the lab's files: %w", err)
		}
	}
	for _, name := range []string{"registry", "protected"} {
		if err := l.run(name, l.Command("docker-registry", "serve", filepath.Join(l.Dir, name+".yml"))); err != nil {
			return err
		}
	}
	if o.DiskBytes > 0 {
		root := filepath.Join(l.Dir, "root")
		if err := os.Mkdir(root, 0o700); err != nil {
			return fmt.Errorf("make the engine's disk: %w", err)
		}
		if err := syscall.Mount("lab", root, "tmpfs", 0, fmt.Sprintf("size=%d", o.DiskBytes)); err != nil {
			return fmt.Errorf("make the engine's disk: %w", err)
		}
	}
	if err := l.StartEngine(ctx); err != nil {
		return err
	}
	if o.Images == nil {
		return l.fill(ctx)
	}
	return l.awaitRegistries(ctx)
}

// Command gives a program in the lab's network.
func (l *Lab) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=/run/netns/" + l.namespace, name}, args...)...)
}

// run starts a process that lives until Close.
func (l *Lab) run(name string, cmd *exec.Cmd) error {
	out, err := os.Create(filepath.Join(l.Dir, name+".log"))
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{cmd, make(chan struct{})}
	go func() {
		_ = p.Wait()
		close(p.ended)
	}()
	l.processes = append(l.processes, p)
	return nil
}

// Listen has a program of busybox listen at a port of the lab, as any program of a host may, until Close.
func (l *Lab) Listen(ctx context.Context, port int) error {
	name := "listener-" + strconv.Itoa(port)
	if err := l.run(name, l.Command("busybox", "httpd", "-f", "-p", strconv.Itoa(port), "-h", l.Dir)); err != nil {
		return err
	}
	return l.awaitListener(ctx, port)
}

// StartEngine starts the engine, again after StopEngine, and waits until it answers.
func (l *Lab) StartEngine(ctx context.Context) error {
	path := func(name string) string { return filepath.Join(l.Dir, name) }
	cmd := l.Command("dockerd", "--config-file", path("daemon.json"), "--data-root", path("root"), "--exec-root", path("exec"),
		"--pidfile", path("engine.pid"), "--host", l.Host, "--shutdown-timeout", "2")
	cmd.Env = append(os.Environ(), "PATH="+path("bin")+":"+os.Getenv("PATH"))
	if err := l.run("engine", cmd); err != nil {
		return err
	}
	api, err := client.New(client.WithHost(l.Host))
	if err != nil {
		return fmt.Errorf("speak to the engine: %w", err)
	}
	defer api.Close()
	l.engine = l.processes[len(l.processes)-1]
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		if _, err := api.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true}); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-l.engine.ended:
			text, _ := os.ReadFile(path("engine.log"))
			return fmt.Errorf("the engine ended: %s", bytes.TrimSpace(text[max(0, len(text)-2000):]))
		case <-ctx.Done():
			return fmt.Errorf("the engine does not answer: %w", context.Cause(ctx))
		}
	}
}

// StopEngine ends the engine as a host's service manager does, and waits until it is gone.
func (l *Lab) StopEngine() error { return l.engine.stop() }

func (p *process) stop() error {
	_ = p.Process.Signal(syscall.SIGTERM)
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-p.ended:
		return nil
	case <-timeout.C:
		_ = syscall.Kill(-p.Process.Pid, syscall.SIGKILL)
		<-p.ended
		return fmt.Errorf("%s did not end by itself", strings.Join(p.Args, " "))
	}
}

// fill puts the images of App into the registry.
func (l *Lab) fill(ctx context.Context) error {
	api, err := client.New(client.WithHost(l.Host))
	if err != nil {
		return fmt.Errorf("speak to the engine: %w", err)
	}
	defer api.Close()
	if err := l.awaitRegistries(ctx); err != nil {
		return err
	}
	for _, tag := range Tags {
		start := `CMD ["/bin/busybox","httpd","-f","-v","-p","8080","-h","/www"]`
		if tag == "crash" {
			start = `CMD ["/bin/sh","-c","echo the database is missing >&2; exit 3"]`
		}
		if err := l.Push(ctx, App+":"+tag, Files(tag), start); err != nil {
			return err
		}
	}
	return nil
}

// Files are those of App's image of a tag.
func Files(tag string) map[string]string {
	page := "www/index.html"
	if tag == "sick" {
		page = "www/other.html"
	}
	return map[string]string{page: tag + "\n", "etc/passwd": "root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n", "etc/group": "root:x:0:\napp:x:1000:\n"}
}

// Push makes an image of busybox and files, and pushes it to the registry under name:tag. It does not stay in the engine.
func (l *Lab) Push(ctx context.Context, name string, files map[string]string, changes ...string) error {
	api, err := client.New(client.WithHost(l.Host))
	if err != nil {
		return fmt.Errorf("speak to the engine: %w", err)
	}
	defer api.Close()
	archive, err := rootFS(files)
	if err != nil {
		return err
	}
	reference := Registry + "/" + name
	imported, err := api.ImageImport(ctx, client.ImageImportSource{Source: archive, SourceName: "-"}, reference,
		client.ImageImportOptions{Changes: append([]string{"ENV PATH=/bin"}, changes...)})
	if err != nil {
		return fmt.Errorf("import image %s: %w", name, err)
	}
	_, err = io.Copy(io.Discard, imported)
	imported.Close()
	if err != nil {
		return fmt.Errorf("import image %s: %w", name, err)
	}
	none, err := authconfig.Encode(registry.AuthConfig{})
	if err != nil {
		return err
	}
	pushed, err := api.ImagePush(ctx, reference, client.ImagePushOptions{RegistryAuth: none})
	if err != nil {
		return fmt.Errorf("push image %s: %w", name, err)
	}
	if err := pushed.Wait(ctx); err != nil {
		return fmt.Errorf("push image %s: %w", name, err)
	}
	if _, err := api.ImageRemove(ctx, reference, client.ImageRemoveOptions{}); err != nil {
		return fmt.Errorf("remove image %s: %w", name, err)
	}
	return nil
}

func rootFS(files map[string]string) (io.Reader, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	busybox, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read busybox: %w", err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	add := func(h *tar.Header, content []byte) {
		h.Size = int64(len(content))
		err = errors.Join(err, w.WriteHeader(h))
		_, wrong := w.Write(content)
		err = errors.Join(err, wrong)
	}
	add(&tar.Header{Name: "bin/busybox", Mode: 0o755}, busybox)
	for _, name := range []string{"sh", "cat", "sleep"} {
		add(&tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, nil)
	}
	add(&tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o777}, nil)
	for name, text := range files {
		add(&tar.Header{Name: name, Mode: 0o644}, []byte(text))
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("make an image: %w", err)
	}
	return &archive, nil
}

func (l *Lab) awaitRegistries(ctx context.Context) error {
	for _, port := range []int{5000, 5001} {
		if err := l.awaitListener(ctx, port); err != nil {
			return err
		}
	}
	return nil
}

// awaitListener waits until something listens at a port of the loopback address within the lab.
func (l *Lab) awaitListener(ctx context.Context, port int) error {
	want := fmt.Sprintf(":%04X 00000000:0000 0A ", port)
	for tick := time.NewTicker(poll); ; {
		for _, table := range []string{"tcp", "tcp6"} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", l.processes[0].Process.Pid, table))
			if err == nil && strings.Contains(strings.ReplaceAll(string(text), strings.Repeat("0", 32), "00000000"), want) {
				tick.Stop()
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return fmt.Errorf("nothing listens at port %d: %w", port, context.Cause(ctx))
		}
	}
}

// Get asks a published port of the lab, and gives the answer's body.
func (l *Lab) Get(ctx context.Context, port int, path string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(l.Address, strconv.Itoa(port))+path, nil)
	if err != nil {
		return "", err
	}
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}).Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", answer.Status)
	}
	return strings.TrimSpace(string(text)), err
}
