package script

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/quicflow/quicflow/agent/executor"
)

// wrap starts a wrapper and waits until it has ended, or ctx ends other than by a cancellation: then the wrapper goes on
// by itself. The wrapper holds the other end of a pipe, on which each byte means "the spool has grown" and whose end is
// the wrapper's own.
func (s *supervisor) wrap(ctx context.Context) error {
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
	cmd.Env = baseEnvironment()
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
			s.log.Wake()
		}
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		c := executor.CancelledBy(ctx)
		if c == nil {
			_ = read.Close()
			<-ended
			return cmd.Process.Release()
		}
		s.cancel(c)
		<-ended
	}
	return cmd.Wait()
}

// baseEnvironment is what a wrapper itself gets: nothing that could be a secret.
func baseEnvironment() []string {
	var env []string
	for _, name := range inherited {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}
