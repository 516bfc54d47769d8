// Package release is the domain: what a release manager says (projects, versions, tasks), what is planned from it
// (waves, steps) and what came of it (statuses, counts, verdicts).
//
// It is pure. It imports the standard library alone, does no I/O and reads no clock, so that workflows may use it.
package release
