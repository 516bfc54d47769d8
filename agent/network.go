package agent

import (
	"context"
	"time"
)

const (
	// settle is how long a host may take from a new address to a route that uses it.
	settle = 250 * time.Millisecond
	// calm keeps a host whose network changes all the time from sending more than a heartbeat a second for it.
	calm = time.Second - settle
)

// networkWatch tells a session that its host got a new address or route. The hub sends to the old address until it hears
// from the new one, and an agent that waits for a script is silent for up to a heartbeat interval otherwise.
type networkWatch struct {
	events *networkEvents
	moved  chan struct{}
}

// watchNetwork starts to listen, in the network namespace of the calling thread. On a system that does not tell, the watch
// never reports anything.
func watchNetwork(a *Agent) *networkWatch {
	w := &networkWatch{moved: make(chan struct{}, 1)}
	if a.cfg.Transport != nil {
		return w // its owner minds the socket
	}
	var err error
	if w.events, err = openNetworkEvents(); err != nil {
		a.cfg.Logger.Debug("changes of the network are noticed by heartbeats only", "error", err)
	}
	return w
}

// run reports changes until ctx ends.
func (w *networkWatch) run(ctx context.Context) {
	if w.events == nil {
		return
	}
	defer w.events.close()
	stop := context.AfterFunc(ctx, w.events.close)
	defer stop()
	for w.events.wait() && sleep(ctx, settle) {
		select {
		case w.moved <- struct{}{}:
		default:
		}
		if !sleep(ctx, calm) {
			return
		}
	}
}
