package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
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

// handler carries out one kind of order.
type handler func(with json.RawMessage) (answer any, err error)

// on makes a handler of a function.
func on[P, A any](f func(P) (A, error)) handler {
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

// none is for orders without parameters, or without an answer.
type none struct{}

// play carries out orders, one after the other, until there are no more.
func play(handlers map[string]handler) error {
	in, out := bufio.NewReader(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := out.Encode(carryOut(handlers, line)); err != nil {
			return err
		}
	}
}

func carryOut(handlers map[string]handler, line []byte) reply {
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
