//go:build !failpoint

// Package failpoint marks the lines where a test lets the process die. In a normal build its functions do nothing; in
// one with the build tag "failpoint" the process kills itself at the line that QUICFLOW_FAILPOINT names:
// once in all, if QUICFLOW_FAILPOINT_ONCE names a file to remember that by.
package failpoint

// Here does nothing in a normal build.
func Here(string) {}

// Environment is empty in a normal build.
func Environment() []string { return nil }
