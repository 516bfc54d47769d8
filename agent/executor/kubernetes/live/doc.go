// Package live holds tests only: the executor of Kubernetes projects against a real control plane, which package
// internal/lab/kube builds and starts. `make test-integration` runs them, with the build tag failpoint.
package live
