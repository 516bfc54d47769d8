package live

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
	kubeclient "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/quicflow/quicflow/agent/executor/kubernetes"
	"github.com/quicflow/quicflow/agent/executor/wrapper"
	"github.com/quicflow/quicflow/internal/lab/kube"
)

var (
	lab    *kube.Cluster
	client *kubeclient.Clientset // the administrator's
)

func TestMain(m *testing.M) {
	wrapper.MaybeRun(kubernetes.New())
	if path := os.Getenv(childVariable); path != "" {
		os.Exit(child(path))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "quicflow-kube-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	lab, err = kube.Start(context.Background(), dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: the Kubernetes control plane cannot run here:", err)
		return 1
	}
	_ = os.Setenv("KUBECONFIG", lab.Kubeconfig) // what an agent of this machine uses
	code := 1
	config, err := clientcmd.BuildConfigFromFlags("", lab.Kubeconfig)
	if err == nil {
		config.QPS, config.Burst = 200, 400
		client, err = kubeclient.NewForConfig(config)
	}
	if err == nil {
		code = m.Run()
		fmt.Printf("the control plane takes %d MiB\n", lab.Memory()>>20)
	} else {
		fmt.Fprintln(os.Stderr, err)
	}
	lab.Stop()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}
