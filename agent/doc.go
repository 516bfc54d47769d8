// Package agent is QuicFlow's agent: it joins a server, holds a session with a hub, carries out the steps that it is
// asked for, each once, and sends results and logs until the hub has stored them.
//
// As a library it is also a way to talk to a hub: Config.Handlers answer the hub's messages, SendMessage sends ours. An
// agent that is for messages alone needs no Executor. It is made by New; Run joins, connects, connects again, and ends with
// its context.
package agent
