// Package hub is the server's end of the backbone: it accepts the QUIC connections of agents, keeps one session an
// identity, carries requests to agents and their answers back, answers messages of agents by handlers, and takes in results
// and logs.
//
// A hub is made by New, started once by Start and ended once by Stop. What it needs to know and to store goes through the
// three narrow interfaces Registry, Sink and Enroller; a program that is about messages alone takes NewMemory for all three,
// and OpenCA for its certificates.
//
// Nothing is acknowledged to an agent before the Sink has stored it. An agent sends again what was not acknowledged, so the
// Sink sees some things twice and must not mind. Messages are sent once, and neither stored nor repeated.
package hub
