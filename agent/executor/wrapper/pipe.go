package wrapper

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// maxFlush bounds what is read after a script has ended: more than a pipe holds, so all that the script wrote, but no
// endless output of a child that it left behind.
const maxFlush = 2 << 20

// pipe copies a process's output for as long as the step lasts. The script's main process decides when the
// script has ended, not the pipe: a child in the background may keep it open for years.
type pipe struct {
	read, write *os.File
	to          io.Writer

	ended   chan struct{} // closed when the copying is over
	flushed chan struct{} // answers flush
	last    atomic.Bool   // the next flush ends the copying
	eof     bool          // nobody can write any more; valid when ended is closed
}

func newPipe(to io.Writer) (*pipe, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return &pipe{read: read, write: write, to: to, ended: make(chan struct{}), flushed: make(chan struct{})}, nil
}

// begin starts the copying once the script has its end of the pipe; a second call does nothing.
func (p *pipe) begin() {
	if p.write != nil {
		_ = p.write.Close()
		p.write = nil
		go p.copy()
	}
}

func (p *pipe) copy() {
	defer close(p.ended)
	buffer := make([]byte, 16<<10)
	for {
		n, err := p.read.Read(buffer)
		_, _ = p.to.Write(buffer[:n])
		switch {
		case err == nil:
			continue
		case !errors.Is(err, os.ErrDeadlineExceeded):
			p.eof = true
			return
		}
		_ = p.read.SetReadDeadline(time.Time{})
		p.eof = p.readAvailable(buffer)
		last := p.last.Load()
		if !p.eof {
			p.flushed <- struct{}{}
		}
		if p.eof || last {
			return
		}
	}
}

// readAvailable reads what is in the pipe without waiting for more, and reports whether that was the end of it.
func (p *pipe) readAvailable(buffer []byte) (eof bool) {
	raw, err := p.read.SyscallConn()
	if err != nil {
		return true
	}
	for total := 0; total < maxFlush; {
		var n int
		var readErr error
		if err := raw.Read(func(fd uintptr) bool {
			n, readErr = syscall.Read(int(fd), buffer)
			return true
		}); err != nil {
			return true
		}
		switch {
		case errors.Is(readErr, syscall.EINTR):
		case errors.Is(readErr, syscall.EAGAIN):
			return false
		case readErr != nil || n == 0:
			return true
		default:
			_, _ = p.to.Write(buffer[:n])
			total += n
		}
	}
	return false
}

// flush returns when all that was written until now has been copied.
func (p *pipe) flush() {
	_ = p.read.SetReadDeadline(time.Unix(1, 0))
	select {
	case <-p.flushed:
	case <-p.ended:
	}
}

// letGo ends the copying of all pipes. Those that processes left behind still write to are handed to a drain: without a reader,
// their next line would kill them.
func letGo(pipes []*pipe) {
	var open []*os.File
	for _, p := range pipes {
		p.last.Store(true)
		p.flush()
		<-p.ended
		if p.eof {
			_ = p.read.Close()
		} else {
			open = append(open, p.read)
		}
	}
	if len(open) == 0 {
		return
	}
	program, err := self()
	if err != nil {
		return
	}
	cmd := exec.Command(program, drainMode, strconv.Itoa(len(open)))
	cmd.Args[0] = "quicflow-drain"
	cmd.Dir = "/"
	cmd.Env = environment()
	cmd.ExtraFiles = open
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if cmd.Start() == nil {
		_ = cmd.Process.Release()
	}
}

// drain reads from the first n inherited files until nobody can write to them any more.
func drain(n string) {
	count, _ := strconv.Atoi(n)
	var wait sync.WaitGroup
	for fd := range count {
		wait.Go(func() { _, _ = io.Copy(io.Discard, os.NewFile(uintptr(3+fd), "pipe")) })
	}
	wait.Wait()
}
