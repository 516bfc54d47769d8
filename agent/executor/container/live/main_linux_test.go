package live

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	worker "github.com/quicflow/quicflow/agent/executor/container"
	"github.com/quicflow/quicflow/agent/executor/wrapper"
	dockerlab "github.com/quicflow/quicflow/internal/lab/docker"
)

// lab is what all tests share; each has a project, ports and networks of its own.
var lab *dockerlab.Lab

func TestMain(m *testing.M) {
	wrapper.MaybeRun(worker.New(worker.Config{}))
	if os.Getenv(childVariable) != "" {
		os.Exit(child())
	}
	if os.Getenv(labVariable) != "" {
		os.Exit(labChild())
	}
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	var err error
	if lab, err = dockerlab.Start(context.Background(), dockerlab.Options{}); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: the tests with Docker cannot run here:", err)
		return 1
	}
	defer func() {
		if err := lab.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL: stop the lab:", err)
			code = 1
		}
		if code == 0 {
			if err := goleak.Find(); err != nil {
				fmt.Fprintln(os.Stderr, "FAIL:", err)
				code = 1
			}
		}
	}()
	return m.Run()
}
