package hub

import "time"

// Hooks are told what happens. Each may be nil. They are called from the goroutines of the sessions, many at a time, and
// must not block: what takes time belongs into a goroutine of the receiver.
type Hooks struct {
	OnConnect           func(Event)                       // a session was accepted
	OnReconnect         func(Event)                       // after OnConnect, if its agent was within the grace after a lost session
	OnDisconnect        func(e Event, cause error)        // an accepted session ended; cause Is ErrGoodbye if on purpose
	OnHeartbeatTimeout  func(e Event, strikes int)        // a check found the last heartbeat too old
	OnDuplicateIdentity func(e Event, holder string)      // a newcomer was refused; holder is the address that keeps the identity
	OnRefused           func(e Event, reason error)       // a connection that authenticated itself was not accepted
	OnMessageReceived   func(e Event, kind string)        // a control frame came: hello, heartbeat, request, response, result, …
	OnMessageSent       func(e Event, kind string)        // a control frame was queued: welcome, request, result_ack, …
	OnBroadcast         func(targets int)                 // a broadcast begins
	OnPromiseTimeout    func(e Event, wait time.Duration) // no answer came within wait
	OnError             func(e Event, err error)          // a session broke the protocol, or what it sent could not be stored
}

// Event says whom a hook is about, or from whom a message is.
type Event struct {
	ClientID string
	Address  string // of the agent, as the hub sees it
	At       time.Time
}
