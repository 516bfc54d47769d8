// Package rig is what the programs of measurements share: processes in roles, a server and a fleet of agents that it knows, and the
// words of their reports.
package rig

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
)

// A role is one process of a measurement. Its parent writes commands to its standard input, one JSON object a line, and
// reads one answer a line. The end of the input ends the process, so that none outlives its parent.

// order is a command.
type order struct {
	Do   string          `json:"do"`
	With json.RawMessage `json:"with,omitempty"`
}

// reply answers an order.
type reply struct {
	Error  string          `json:"error,omitempty"`
	Answer json.RawMessage `json:"answer,omitempty"`
}

// Handler carries out one kind of order.
type Handler func(with json.RawMessage) (answer any, err error)

// On makes a Handler of a function.
func On[P, A any](f func(P) (A, error)) Handler {
	return func(with json.RawMessage) (any, error) {
		var parameters P
		if len(with) > 0 {
			if err := json.Unmarshal(with, &parameters); err != nil {
				return nil, err
			}
		}
		return f(parameters)
	}
}

// None is for orders without parameters, or without an answer.
type None struct{}

// Play carries out orders, one after the other, until the process ends.
func Play(handlers map[string]Handler) error {
	stopProfile, err := profile()
	if err != nil {
		return err
	}
	lines := make(chan []byte)
	go func() {
		in := bufio.NewReader(os.Stdin)
		for {
			line, err := in.ReadBytes('\n')
			if err != nil { // the parent is gone or has seen enough, whatever is being done
				stopProfile()
				os.Exit(0)
			}
			lines <- line
		}
	}()
	out := json.NewEncoder(os.Stdout)
	for line := range lines {
		if err := out.Encode(carryOut(handlers, line)); err != nil {
			return err
		}
	}
	return nil
}

// profileDir is the variable that names a directory for CPU profiles, one a process.
const profileDir = "QUICFLOW_BENCH_PROFILE"

func profile() (stop func(), err error) {
	dir := os.Getenv(profileDir)
	if dir == "" {
		return func() {}, nil
	}
	file, err := os.Create(filepath.Join(dir, fmt.Sprintf("%s-%d.prof", filepath.Base(os.Args[len(os.Args)-1]), os.Getpid())))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		_ = file.Close()
	}, nil
}

func carryOut(handlers map[string]Handler, line []byte) reply {
	var o order
	if err := json.Unmarshal(line, &o); err != nil {
		return reply{Error: err.Error()}
	}
	f, ok := handlers[o.Do]
	if !ok {
		return reply{Error: fmt.Sprintf("unknown order %q", o.Do)}
	}
	answer, err := f(o.With)
	if err != nil {
		return reply{Error: err.Error()}
	}
	text, err := json.Marshal(answer)
	if err != nil {
		return reply{Error: err.Error()}
	}
	return reply{Answer: text}
}
