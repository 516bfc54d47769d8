package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/kubernetes"
	"github.com/quicflow/quicflow/internal/release"
)

// childVariable names the file of a step that a child of the test binary carries out, to be killed at a failpoint.
const childVariable = "QUICFLOW_LIVE_STEP"

// tools are what a wrapper brings, on a step's directory.
type tools struct {
	step *executor.Step
	spec *release.KubernetesSpec

	mu       sync.Mutex
	log      io.Writer
	reported *executor.Running
}

var _ executor.Tools = (*tools)(nil)

func (t *tools) Printf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.log, format+"\n", args...)
}

func (t *tools) Stdout() io.Writer { return t.log }
func (t *tools) Stderr() io.Writer { return t.log }

func (t *tools) Script(ctx context.Context, s executor.Script) error {
	if s.Text == "" {
		return nil
	}
	var code int
	began := false
	if ended, _ := t.Kept("ended-"+s.Name, &code); !ended {
		if _, _ = t.Kept("began-"+s.Name, &began); began {
			return executor.ErrUnknown
		}
		if err := t.Keep("began-"+s.Name, true); err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, s.Interpreter, "-c", s.Text)
		for name, value := range s.Env {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
		out, err := cmd.CombinedOutput()
		t.Printf("%s: %s", s.Name, out)
		if err != nil {
			code = 1
		}
		if err := t.Keep("ended-"+s.Name, code); err != nil {
			return err
		}
	}
	if code != 0 {
		return &executor.ExitError{Name: s.Name, Code: code}
	}
	return nil
}

func (t *tools) Program(context.Context, executor.Program) error { return errors.ErrUnsupported }

func (t *tools) Health(ctx context.Context, env map[string]string) error {
	if t.spec.Health == nil {
		return nil
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", t.spec.Health.Exec)
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("health check: %s", strings.TrimSpace(string(out)))
	}
	return nil
}

func (t *tools) Artifact(context.Context, string) (string, error) {
	return "", errors.ErrUnsupported
}

func (t *tools) Keep(name string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(t.step.Dir, name), text, 0o600)
}

func (t *tools) Kept(name string, value any) (bool, error) {
	text, err := os.ReadFile(filepath.Join(t.step.Dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, json.Unmarshal(text, value)
}

func (t *tools) Environment(base bool) map[string]string {
	env := map[string]string{"QUICFLOW_PROJECT": t.step.Project, "QUICFLOW_VERSION": t.step.Version}
	if base {
		env["PATH"] = os.Getenv("PATH")
	}
	return env
}

func (t *tools) Report(running executor.Running) { t.reported = &running }

// world is a namespace, a project in it, and the agent that deploys it.
type world struct {
	t         *testing.T
	namespace string
	agent     string
	project   string
	config    string // path of the kubeconfig
	steps     int
}

func newWorld(t *testing.T) *world {
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	w := &world{t: t, namespace: name[:min(len(name), 60)], agent: "agent-1", project: "shop", config: lab.Kubeconfig}
	_, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := client.CoreV1().ServiceAccounts(w.namespace).Get(t.Context(), "default", metav1.GetOptions{})
		return err == nil
	}, 20*time.Second, 20*time.Millisecond)
	return w
}

// spec gives a configuration of a Deployment with two pods of a tag.
func (w *world) spec(tag string, changes ...func(*release.KubernetesSpec)) release.KubernetesSpec {
	replicas := 2
	s := release.KubernetesSpec{Kubeconfig: w.config, Namespace: w.namespace, Kind: "Deployment", Name: "shop", Image: "registry.example.com/team/shop",
		ImageTag: tag, Replicas: &replicas, Deadline: release.Duration(60 * time.Second)}
	for _, change := range changes {
		change(&s)
	}
	return s
}

func (w *world) step(action release.StepAction, version string, spec release.KubernetesSpec) *executor.Step {
	w.steps++
	dir := filepath.Join(w.t.TempDir(), "step")
	require.NoError(w.t, os.Mkdir(dir, 0o700))
	return &executor.Step{ID: fmt.Sprintf("step-%d", w.steps), TaskID: fmt.Sprintf("task-%d", w.steps), Action: action, Project: w.project, Version: version,
		ConfigID: "config-" + version, Config: release.Merged{Type: release.TypeKubernetes, Spec: release.Spec{Kubernetes: &spec}},
		Host: executor.Host{ClientID: w.agent}, Dir: dir}
}

// outcome is what came of a step.
type outcome struct {
	log      string
	reported *executor.Running
	err      error
}

func (w *world) do(ctx context.Context, step *executor.Step) outcome {
	log := &strings.Builder{}
	tools := &tools{step: step, spec: step.Config.Kubernetes, log: log}
	worker := kubernetes.New()
	err := worker.Check(step)
	if err == nil {
		err = worker.Work(ctx, &executor.Run{Step: step, Tools: tools})
	}
	w.t.Logf("%s %s: %v\n%s", step.Action, step.Version, err, log)
	return outcome{log.String(), tools.reported, err}
}

// deploy carries out a step that must succeed.
func (w *world) deploy(action release.StepAction, version string, spec release.KubernetesSpec) outcome {
	w.t.Helper()
	o := w.do(w.t.Context(), w.step(action, version, spec))
	require.NoError(w.t, o.err)
	return o
}

// fail carries out a step that must fail, and gives why.
func (w *world) fail(action release.StepAction, version string, spec release.KubernetesSpec) string {
	w.t.Helper()
	o := w.do(w.t.Context(), w.step(action, version, spec))
	require.Error(w.t, o.err)
	require.NotContains(w.t, o.err.Error(), "\n")
	return o.err.Error()
}

func (w *world) uninstall(spec release.KubernetesSpec) outcome {
	w.t.Helper()
	return w.deploy(release.StepUninstall, "", spec)
}

func (w *world) describe(spec release.KubernetesSpec) executor.Running {
	running, err := kubernetes.New().Describe(w.t.Context(), w.deployed(spec))
	require.NoError(w.t, err)
	return running
}

func (w *world) deployed(spec release.KubernetesSpec) executor.Deployed {
	return executor.Deployed{Project: w.project, Config: release.Merged{Type: release.TypeKubernetes, Spec: release.Spec{Kubernetes: &spec}},
		Host: executor.Host{ClientID: w.agent}}
}

// images gives the images of the pods that are not being stopped, and how many are ready.
func (w *world) images() map[string]int {
	pods, err := client.CoreV1().Pods(w.namespace).List(w.t.Context(), metav1.ListOptions{})
	require.NoError(w.t, err)
	found := map[string]int{}
	for _, pod := range pods.Items {
		if pod.DeletionTimestamp != nil {
			continue
		}
		_, tag, _ := strings.Cut(pod.Spec.Containers[0].Image, ":")
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				found[tag]++
			}
		}
	}
	return found
}

// soon waits until all pods that are ready are these.
func (w *world) soon(want map[string]int) {
	w.t.Helper()
	var is map[string]int
	ok := func() bool { is = w.images(); return maps.Equal(is, want) }
	for until := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(until) {
			require.Equal(w.t, want, is)
		}
		select {
		case <-w.t.Context().Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// empty checks that nothing is left in the namespace of what a project made.
func (w *world) empty() {
	w.t.Helper()
	deployments, err := client.AppsV1().Deployments(w.namespace).List(w.t.Context(), metav1.ListOptions{})
	require.NoError(w.t, err)
	require.Empty(w.t, deployments.Items)
	pods, err := client.CoreV1().Pods(w.namespace).List(w.t.Context(), metav1.ListOptions{})
	require.NoError(w.t, err)
	require.Empty(w.t, pods.Items)
	services, err := client.CoreV1().Services(w.namespace).List(w.t.Context(), metav1.ListOptions{})
	require.NoError(w.t, err)
	require.Empty(w.t, services.Items)
	secrets, err := client.CoreV1().Secrets(w.namespace).List(w.t.Context(), metav1.ListOptions{})
	require.NoError(w.t, err)
	require.Empty(w.t, secrets.Items)
	_, err = client.CoreV1().Namespaces().Get(w.t.Context(), w.namespace, metav1.GetOptions{})
	require.NoError(w.t, err, "the namespace stays")
}

// childStep is a step for a child.
type childStep struct {
	Step *executor.Step
	Dir  string
}

// kill carries out a step in a process that dies at a failpoint, and says whether it did.
func (w *world) kill(step *executor.Step, failpoint string) bool {
	w.t.Helper()
	file := w.childFile(step)
	program, err := os.Executable()
	require.NoError(w.t, err)
	cmd := exec.CommandContext(w.t.Context(), program)
	cmd.Env = append(os.Environ(), childVariable+"="+file, "QUICFLOW_FAILPOINT="+failpoint)
	out, err := cmd.CombinedOutput()
	w.t.Logf("until %s: %v\n%s", failpoint, err, out)
	return err != nil && err.Error() == "signal: killed"
}

// childFile writes down a step for a child, and gives the file's path.
func (w *world) childFile(step *executor.Step) string {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "step.json")
	text, err := json.Marshal(childStep{step, step.Dir})
	require.NoError(w.t, err)
	require.NoError(w.t, os.WriteFile(file, text, 0o600))
	return file
}

// child carries out a step.
func child(path string) int {
	text, err := os.ReadFile(path)
	what := childStep{}
	if err == nil {
		err = json.Unmarshal(text, &what)
	}
	if err == nil {
		step := what.Step
		step.Dir = what.Dir
		err = kubernetes.New().Work(context.Background(), &executor.Run{Step: step,
			Tools: &tools{step: step, spec: step.Config.Kubernetes, log: os.Stdout}})
	}
	fmt.Println("ended:", err)
	return 0
}
