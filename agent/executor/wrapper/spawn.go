package wrapper

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/quicflow/quicflow/agent/executor"
	"github.com/quicflow/quicflow/internal/failpoint"
)

// wrap starts a wrapper and waits until it has ended, or ctx has: then the wrapper goes on by itself. The wrapper holds the other
// end of a pipe, on which each byte means "the spool has grown" and whose end is the wrapper's own.
func (s *supervisor) wrap(ctx context.Context, wake func()) error {
	program, err := self()
	if err != nil {
		return err
	}
	output, err := os.OpenFile(s.dir.path(outputFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer output.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	cmd := exec.Command(program, wrapperMode, string(s.dir))
	cmd.Args[0] = "quicflow-step"
	cmd.Dir = "/"
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = output, output
	cmd.ExtraFiles = []*os.File{write}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = write.Close()
	if err != nil {
		return fmt.Errorf("start wrapper: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for b := make([]byte, 512); ; {
			if _, err := read.Read(b); err != nil {
				return
			}
			wake()
		}
	}()
	select {
	case <-ended:
		return cmd.Wait()
	case <-ctx.Done():
		_ = read.Close()
		<-ended
		return cmd.Process.Release()
	}
}

// passed are the variables of the agent by which workers find engines and clusters. Scripts do not get them.
var passed = []string{
	"DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "DOCKER_API_VERSION",
	"KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR",
}

// environment is what a wrapper itself gets.
func environment() []string {
	env := failpoint.Environment()
	for name, value := range executor.BaseVariables() {
		env = append(env, name+"="+value)
	}
	for _, name := range passed {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}
