package rig

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// goodbye is how long a role may take to end by itself.
const goodbye = 5 * time.Second

// Process is a role that runs, seen from its parent. Its methods are for one goroutine.
type Process struct {
	name    string
	command *exec.Cmd
	in      io.WriteCloser
	replies chan []byte // closed when the process says no more
	ended   chan struct{}
}

// Start runs a program in a role. The end of ctx kills it.
func Start(ctx context.Context, program, role string, env ...string) (*Process, error) {
	p := &Process{name: role, command: exec.Command(program, role), replies: make(chan []byte), ended: make(chan struct{})}
	p.command.Env = append(os.Environ(), env...)
	p.command.Stderr = os.Stderr
	p.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the parent, which ends the others
	var err error
	if p.in, err = p.command.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = p.command.Process.Kill() })
	go func() {
		defer close(p.ended)
		defer stop()
		lines := bufio.NewReader(out)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				break
			}
			p.replies <- line
		}
		close(p.replies)
		_ = p.command.Wait()
	}()
	return p, nil
}

// Order has the process do something and waits for its answer, as long as ctx allows. After an error the process is of no more use.
func (p *Process) Order(ctx context.Context, do string, with, answer any) error {
	text, err := json.Marshal(with)
	if err != nil {
		return err
	}
	line, err := json.Marshal(order{Do: do, With: text})
	if err != nil {
		return err
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("%s: %s: %w", p.name, do, err)
	}
	select {
	case line, ok := <-p.replies:
		if !ok {
			return fmt.Errorf("%s: %s: the process ended", p.name, do)
		}
		var r reply
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("%s: %s: %w", p.name, do, err)
		}
		if r.Error != "" {
			return fmt.Errorf("%s: %s: %s", p.name, do, r.Error)
		}
		if answer == nil {
			return nil
		}
		return json.Unmarshal(r.Answer, answer)
	case <-ctx.Done():
		return fmt.Errorf("%s: %s: %w", p.name, do, context.Cause(ctx))
	}
}

// Stop ends the process: by the end of its input, or, where that is not enough, by force. A nil process is no error.
func (p *Process) Stop() {
	if p == nil {
		return
	}
	_ = p.in.Close()
	timer := time.AfterFunc(goodbye, func() { _ = p.command.Process.Kill() })
	defer timer.Stop()
	p.drain()
}

// Kill ends the process as a power cut would.
func (p *Process) Kill() {
	_ = p.command.Process.Kill()
	p.drain()
}

func (p *Process) drain() {
	for range p.replies { // an answer that no one waits for
	}
	<-p.ended
}

// Usage is what it has used so far.
func (p *Process) Usage() (Usage, error) { return UsageOf(p.command.Process.Pid) }
