// Package live holds tests only: container deployments on a real Docker engine with real registries, killed at every stage.
// They need root and Linux; `make test-integration` runs them.
package live
