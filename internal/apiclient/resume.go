package apiclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/tmaxmax/go-sse"
)

const (
	maxEvent      = 16 << 20
	streamSilence = 45 * time.Second // three of the server's keep-alives
	firstBackoff  = 250 * time.Millisecond
	lastBackoff   = 5 * time.Second
	patienceTime  = 10 * time.Minute
)

// persistence is how a stream is followed over lost connections.
type persistence struct {
	patience time.Duration // without reaching the server. Defaults to 10 minutes.
	lost     func(err error)
	resumed  func()
}

// follow reads connections until one is done. Its error is an answer that asking again will not change, the end of ctx, or
// of the patience.
func (p persistence) follow(ctx context.Context, connection func(connected func()) (done bool, err error)) error {
	if p.patience == 0 {
		p.patience = patienceTime
	}
	backoff, lost := firstBackoff, time.Time{}
	for {
		done, err := connection(func() {
			if !lost.IsZero() && p.resumed != nil {
				p.resumed()
			}
			lost, backoff = time.Time{}, firstBackoff
		})
		if done {
			return nil
		}
		if err == nil {
			err = io.ErrUnexpectedEOF // the server has stopped, or is about to
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if status := StatusOf(err); status >= 400 && status < 500 && status != http.StatusTooManyRequests {
			return err
		}
		if lost.IsZero() {
			lost = time.Now()
			if p.lost != nil {
				p.lost(err)
			}
		}
		if time.Since(lost) > p.patience {
			return fmt.Errorf("server not reached for %s: %w", p.patience, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(backoff):
			backoff = min(2*backoff, lastBackoff)
		}
	}
}

var errSilent = errors.New("nothing came for too long")

// readStream reads the events of one connection until it ends, or handle gives false or an error.
func readStream(ctx context.Context, open func(context.Context) (*http.Response, error), connected func(), handle func(sse.Event) (more bool, err error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(streamSilence, func() { cancel(errSilent) })
	defer silence.Stop()

	res, err := open(ctx)
	if err := check(res, err); err != nil {
		return err
	}
	defer res.Body.Close()
	connected()
	body := readerFunc(func(p []byte) (int, error) {
		n, err := res.Body.Read(p)
		silence.Reset(streamSilence)
		return n, err
	})
	for event, err := range sse.Read(body, &sse.ReadConfig{MaxEventSize: maxEvent}) {
		if err != nil {
			return fmt.Errorf("read stream: %w", err)
		}
		if more, err := handle(event); err != nil || !more {
			return err
		}
	}
	return context.Cause(ctx)
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
