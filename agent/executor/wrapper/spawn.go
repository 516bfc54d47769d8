package wrapper

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/quicflow/quicflow/agent/executor"
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
	if at := os.Getenv(failpointVariable); at != "" && !s.dir.has(startedFile) {
		cmd.Env = append(cmd.Env, failpointVariable+"="+at) // the step's first wrapper dies there, and the next one goes on
	}
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

// failpointVariable names the line at which a test lets a process die; it means nothing in a normal build.
const failpointVariable = "QUICFLOW_FAILPOINT"

// environment is what a wrapper itself gets: nothing that could be a secret.
func environment() []string {
	var env []string
	for name, value := range executor.BaseVariables() {
		env = append(env, name+"="+value)
	}
	return env
}
