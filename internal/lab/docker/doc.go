// Package docker runs a private Docker engine and image registries for tests, as root on Linux.
//
// All of it lives in a network namespace of its own, so that ports, bridges and packet filter rules of the host are neither used nor
// changed, and several labs, and the host's own engine, do not know of each other. What a lab that was killed left behind, the next
// one removes. The host reaches published ports at Address.
package docker
