package live

import (
	"context"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/agent/executor/executortest"
	"github.com/quicflow/quicflow/agent/executor/kubernetes"
	"github.com/quicflow/quicflow/agent/executor/wrapper"
	"github.com/quicflow/quicflow/internal/release"
)

func TestKubernetesConforms(t *testing.T) {
	executortest.Conformance(t, executortest.Factory{
		New: func(t testing.TB) executor.Executor {
			return executortest.NewExecutor(t, wrapper.Config{Worker: kubernetes.New()})
		},
		Config: func(_ testing.TB, behaviour executortest.Behaviour, step *executor.Step) release.Merged {
			replicas := 1
			spec := &release.KubernetesSpec{Namespace: step.Project, CreateNamespace: true, Name: "shop", Image: "team/shop", ImageTag: "v" + step.Version,
				Replicas: &replicas, Timeout: release.Duration(time.Minute), Deadline: release.Duration(time.Minute)}
			switch behaviour {
			case executortest.TakesASec:
				spec.PodAnnotations = map[string]string{"lab/ready-after": "1s"}
			case executortest.Fails:
				spec.ImageTag += "-missing"
				spec.Deadline = release.Duration(time.Second)
			case executortest.Blocks:
				spec.ImageTag += "-unready"
			case executortest.Wrong:
				spec.Image = ""
			case executortest.UsesASecret:
				spec.Env = map[string]string{"TOKEN": "${TOKEN}"}
			}
			return release.Merged{Type: release.TypeKubernetes, Spec: release.Spec{Kubernetes: spec}}
		},
		// An effect is a revision of the workload: the cluster keeps those that are over.
		Effects: func(_ testing.TB, step *executor.Step) int {
			sets, err := client.AppsV1().ReplicaSets(step.Project).List(context.Background(), metav1.ListOptions{})
			if err != nil {
				return 0
			}
			n := 0
			for _, set := range sets.Items {
				if set.Spec.Template.Annotations["quicflow/version"] == step.Version {
					n++
				}
			}
			return n
		},
		SurvivesKill: true,
		HasLogs:      true,
	})
}
