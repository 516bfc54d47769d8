// Package kube starts a Kubernetes control plane for tests, as it is released: etcd, API server, controllers and scheduler, and one
// node whose kubelet runs nothing but tells of pods what their annotations ask for (see cluster/pod.go). It needs no root, no
// container engine and nothing installed but Go: the program is built from the modules of directory cluster.
package kube

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// startTimeout is how long a cluster may take to be ready; on an idle machine it takes five seconds.
const startTimeout = 2 * time.Minute

// Cluster is a control plane that runs.
type Cluster struct {
	// Kubeconfig is the path of the administrator's.
	Kubeconfig string
	// Server is the API server's URL.
	Server string
	// Dir has the logs, NAME.log for each part.
	Dir string

	program string
	tokens  map[string]string // by user
	parts   []*part
}

// part is a process of the cluster's.
type part struct {
	name  string
	args  []string
	cmd   *exec.Cmd
	stdin io.Closer // it ends when this is closed
	ended chan struct{}
}

// Users are those the API server knows, beside the administrator: they may do nothing until a role is bound to them.
var Users = []string{"limited"}

const admin = "admin"

// Start builds the program if it must, starts a cluster with its state in dir, and waits until it is ready for pods.
func Start(ctx context.Context, dir string) (_ *Cluster, err error) {
	program, err := Build(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	c := &Cluster{program: program, Dir: dir, Server: "https://" + ports[2], Kubeconfig: filepath.Join(dir, "kubeconfig"), tokens: map[string]string{}}
	defer func() {
		if err != nil {
			c.Stop()
		}
	}()
	if err := c.writeFiles(); err != nil {
		return nil, err
	}
	client, peer := "http://"+ports[0], "http://"+ports[1]
	_, port, _ := net.SplitHostPort(ports[2])
	key := filepath.Join(dir, "accounts.key")
	common := []string{"--kubeconfig=" + c.Kubeconfig, "--leader-elect=false", "--bind-address=127.0.0.1", "--secure-port=0", "--kube-api-qps=200", "--kube-api-burst=400"}
	for _, p := range []struct {
		name string
		args []string
	}{
		{"etcd", []string{"--name=e", "--data-dir=" + filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--log-level=warn",
			"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
			"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=e=" + peer}},
		{"kube-apiserver", []string{"--etcd-servers=" + client, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port=" + port,
			"--cert-dir=" + filepath.Join(dir, "certs"), "--service-cluster-ip-range=10.250.0.0/24", "--endpoint-reconciler-type=none",
			"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + key, "--service-account-signing-key-file=" + key,
			"--token-auth-file=" + filepath.Join(dir, "tokens.csv"), "--authorization-mode=RBAC"}},
		{"kube-controller-manager", append([]string{"--service-account-private-key-file=" + key, "--allocate-node-cidrs=false"}, common...)},
		{"kube-scheduler", common},
		{"kubelet", []string{"--kubeconfig=" + c.Kubeconfig}},
	} {
		if p.name == "kube-controller-manager" { // it and those after it give up without a server
			if err := c.wait(ctx, "the API server", func() bool { return c.get(ctx, "/readyz", nil) == nil }); err != nil {
				return nil, err
			}
		}
		if err := c.start(p.name, p.args...); err != nil {
			return nil, err
		}
	}
	return c, c.wait(ctx, "the node", func() bool {
		return c.nodeReady(ctx) && c.get(ctx, "/api/v1/namespaces/default/serviceaccounts/default", nil) == nil
	})
}

// Stop ends all processes and waits until they are gone.
func (c *Cluster) Stop() {
	for i := len(c.parts) - 1; i >= 0; i-- {
		p := c.parts[i]
		_ = p.stdin.Close()
		select {
		case <-p.ended:
		case <-time.After(5 * time.Second):
			_ = p.cmd.Process.Kill()
			<-p.ended
		}
	}
	c.parts = nil
}

// Kill ends one part at once, such as kube-apiserver, and gives a function that starts it again.
func (c *Cluster) Kill(name string) (again func() error) {
	for i, p := range c.parts {
		if p.name == name {
			_ = p.cmd.Process.Kill()
			<-p.ended
			_ = p.stdin.Close()
			c.parts = append(c.parts[:i:i], c.parts[i+1:]...)
			return func() error { return c.start(name, p.args...) }
		}
	}
	return func() error { return fmt.Errorf("there is no part %s", name) }
}

// KubeconfigOf writes a kubeconfig for a user (see Users) and gives its path; namespace is that of its context.
func (c *Cluster) KubeconfigOf(user, namespace, path string) error {
	config := map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "lab",
		"clusters": []any{map[string]any{"name": "lab", "cluster": map[string]any{"server": c.Server, "insecure-skip-tls-verify": true}}},
		"users":    []any{map[string]any{"name": user, "user": map[string]any{"token": c.tokens[user]}}},
		"contexts": []any{map[string]any{"name": "lab", "context": map[string]any{"cluster": "lab", "user": user, "namespace": namespace}}},
	}
	text, err := json.Marshal(config) // JSON is YAML
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

func (c *Cluster) writeFiles() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(filepath.Join(c.Dir, "accounts.key"), text, 0o600); err != nil {
		return err
	}
	lines := ""
	for _, user := range append([]string{admin}, Users...) {
		token := make([]byte, 16)
		_, _ = rand.Read(token)
		c.tokens[user] = hex.EncodeToString(token)
		group := ""
		if user == admin {
			group = ",system:masters"
		}
		lines += c.tokens[user] + "," + user + "," + user + group + "\n"
	}
	if err := os.WriteFile(filepath.Join(c.Dir, "tokens.csv"), []byte(lines), 0o600); err != nil {
		return err
	}
	return c.KubeconfigOf(admin, "", c.Kubeconfig)
}

func (c *Cluster) start(name string, args ...string) error {
	log, err := os.OpenFile(filepath.Join(c.Dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(c.program, append([]string{name}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p := &part{name: name, args: args, cmd: cmd, stdin: stdin, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		_ = cmd.Wait()
	}()
	c.parts = append(c.parts, p)
	return nil
}

// wait waits for a condition, unless a part ends or the time does: then it says why.
func (c *Cluster) wait(ctx context.Context, what string, done func() bool) error {
	for !done() {
		for _, p := range c.parts {
			select {
			case <-p.ended:
				log, _ := os.ReadFile(filepath.Join(c.Dir, p.name+".log"))
				return fmt.Errorf("%s ended: %s", p.name, log[max(0, len(log)-2000):])
			default:
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w; see %s", what, ctx.Err(), c.Dir)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// nodeReady says whether the node takes pods: the controllers keep a taint on it for a moment.
func (c *Cluster) nodeReady(ctx context.Context) bool {
	var node struct {
		Spec struct {
			Taints []any `json:"taints"`
		} `json:"spec"`
		Status struct {
			Conditions []struct {
				Type, Status string
			} `json:"conditions"`
		} `json:"status"`
	}
	if c.get(ctx, "/api/v1/nodes/node-0", &node) != nil || len(node.Spec.Taints) > 0 {
		return false
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == "Ready" && condition.Status == "True" {
			return true
		}
	}
	return false
}

func (c *Cluster) get(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Server+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+c.tokens[admin])
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(into)
}

// freePorts gives addresses on loopback that nothing listens on.
func freePorts(n int) ([]string, error) {
	addresses := make([]string, n)
	for i := range addresses {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }()
		addresses[i] = l.Addr().String()
	}
	return addresses, nil
}

// Certificate is the path of the API server's own, which signs itself.
func (c *Cluster) Certificate() string { return filepath.Join(c.Dir, "certs", "apiserver.crt") }

// Memory gives the resident memory of all parts, in bytes.
func (c *Cluster) Memory() int64 {
	total := int64(0)
	for _, p := range c.parts {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
		for line := range strings.Lines(string(text)) {
			var kib int64
			if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
				total += kib << 10
			}
		}
	}
	return total
}
