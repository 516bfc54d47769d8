// Package weaknet holds tests only: real agents and a real hub on networks that lose, delay, reorder and cut, between
// network namespaces of Linux. They need root; `make test-integration` runs them.
package weaknet
