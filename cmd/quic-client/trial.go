package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/quicflow/quicflow/agent"
)

// trialVariable tells a program that it is tried: it says on acceptedFD when a server has accepted its session, and ends when
// nobody has the other end of lifeFD any more.
const (
	trialVariable = "QUICFLOW_UPGRADE_TRIAL"
	acceptedFD    = 3
	lifeFD        = 4
)

// trialEnd is how long a program that was tried has to end.
const trialEnd = 20 * time.Second

// upgradeSignal asks an agent to read the request in its data directory.
const upgradeSignal = syscall.SIGUSR2

// serve runs the agent, and upgrades it when it is asked to. SIGHUP makes it look at the host's facts.
func (o *options) serve(ctx context.Context, a *agent.Agent, dir string) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, upgradeSignal)
	defer signal.Stop(signals)
	children := newReaper()
	defer children.stop()
	for {
		life, stop := context.WithCancelCause(ctx)
		var asked *upgradeRequest
		var watch sync.WaitGroup
		watch.Go(func() { asked = o.watch(life, stop, signals, a, dir) })
		err := a.Run(life)
		stop(nil)
		watch.Wait()
		if asked == nil || ctx.Err() != nil {
			return err
		}
		if err := o.try(ctx, *asked); err == nil {
			err = asked.swap()
			if err == nil {
				err = o.become(dir, *asked)
			}
			o.conclude(dir, *asked, err)
		} else {
			_ = os.Remove(asked.Binary)
			o.conclude(dir, *asked, err)
		}
		if ctx.Err() != nil {
			return nil
		}
		children.adopt()
	}
}

// watch handles signals until the agent's life ends; it ends it for an upgrade that is asked for.
func (o *options) watch(life context.Context, stop context.CancelCauseFunc, signals <-chan os.Signal, a *agent.Agent, dir string) *upgradeRequest {
	for {
		select {
		case s := <-signals:
			if s == syscall.SIGHUP {
				a.RefreshFacts()
				continue
			}
			r := new(upgradeRequest)
			if err := readJSON(filepath.Join(dir, requestFile), r); err != nil {
				o.logger.Warn("upgrade was asked for, but not which", "error", err)
				continue
			}
			_ = os.Remove(filepath.Join(dir, requestFile))
			o.logger.Info("upgrade begins", "binary", r.Binary)
			stop(agent.ErrRestarting)
			return r
		case <-life.Done():
			return nil
		}
	}
}

// conclude says what came of an upgrade.
func (o *options) conclude(dir string, r upgradeRequest, err error) {
	outcome := upgradeOutcome{ID: r.ID}
	if err != nil {
		outcome.Error = err.Error()
		o.logger.Error("upgrade failed, the previous version goes on", "error", err)
	}
	if err := writeJSON(filepath.Join(dir, outcomeFile), outcome); err != nil {
		o.logger.Error("outcome of the upgrade could not be kept", "error", err)
	}
}

// try runs the new program as the agent until a server accepts its session. So nothing depends on the new one's being able to
// give up: the old one watches, and is still there.
func (o *options) try(ctx context.Context, r upgradeRequest) error {
	acceptedRead, acceptedWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	defer acceptedRead.Close()
	lifeRead, lifeWrite, err := os.Pipe()
	if err != nil {
		_ = acceptedWrite.Close()
		return err
	}
	defer lifeWrite.Close()
	cmd := exec.Command(r.Binary, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), trialVariable+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{acceptedWrite, lifeRead}
	cmd.SysProcAttr = trialAttributes()
	runtime.LockOSThread() // the trial's life hangs on the thread that starts it; see trialAttributes
	defer runtime.UnlockOSThread()
	err = cmd.Start()
	_ = acceptedWrite.Close()
	_ = lifeRead.Close()
	if err != nil {
		return fmt.Errorf("start the new version: %w", err)
	}
	accepted := make(chan bool, 1)
	go func() {
		line, _ := bufio.NewReader(acceptedRead).ReadString('\n')
		accepted <- line != ""
	}()
	timer := time.NewTimer(r.Timeout)
	defer timer.Stop()
	select {
	case ok := <-accepted:
		if !ok {
			err = errors.New("the new version ended before a server accepted its session")
		}
	case <-timer.C:
		err = fmt.Errorf("no server accepted a session of the new version within %s", r.Timeout)
	case <-ctx.Done():
		err = errors.New("the agent was stopped during the upgrade")
	}
	_ = lifeWrite.Close()
	kill := time.AfterFunc(trialEnd, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	if err != nil {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may not know of its other way to end
	}
	ended := cmd.Wait()
	if err != nil && ended != nil {
		err = fmt.Errorf("%w (%w)", err, ended)
	}
	return err
}

// become goes on as the program that was put in this one's place. It returns only with an error, and the previous one back.
func (o *options) become(dir string, r upgradeRequest) error {
	o.conclude(dir, r, nil)
	o.logger.Info("upgrade is done", "program", r.Program)
	err := syscall.Exec(r.Program, os.Args, os.Environ())
	return errors.Join(fmt.Errorf("start %s: %w", r.Program, err), os.Rename(r.Program+previousSuffix, r.Program))
}

// onTrial makes a program that is tried say so when it is accepted, and ends ctx when it is to end.
func onTrial(ctx context.Context, cfg *agent.Config) (context.Context, func()) {
	if os.Getenv(trialVariable) == "" {
		return ctx, func() {}
	}
	_ = os.Unsetenv(trialVariable)
	syscall.CloseOnExec(acceptedFD)
	syscall.CloseOnExec(lifeFD)
	_ = syscall.SetNonblock(lifeFD, true) // so that closing it ends the reading
	accepted, life := os.NewFile(acceptedFD, "accepted"), os.NewFile(lifeFD, "life")
	ctx, cancel := context.WithCancelCause(ctx)
	var once sync.Once
	cfg.OnConnect = func(*agent.Welcome) {
		once.Do(func() {
			_, _ = accepted.WriteString("accepted\n")
			_ = accepted.Close()
		})
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = life.Read(make([]byte, 1))
		cancel(agent.ErrRestarting)
	}()
	return ctx, func() {
		_ = life.Close()
		<-ended
		cancel(nil)
	}
}
