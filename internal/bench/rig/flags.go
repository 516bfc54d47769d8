package rig

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Numbers reads the value of a flag: positive numbers, separated by commas.
func Numbers(name, text string) ([]int, error) {
	var all []int
	for _, field := range strings.Split(text, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("-%s: %q is not a positive number", name, field)
		}
		all = append(all, n)
	}
	return all, nil
}

// Exit ends the program, with a message if there is an error.
func Exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}
