package service

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// HTTPConfig says what an HTTP server serves.
type HTTPConfig struct {
	// Listener is where requests come from; the service closes it. Required.
	Listener net.Listener
	// Handler answers. Required.
	Handler http.Handler
	// TLS makes it HTTPS. Defaults to none.
	TLS *tls.Config
	// Drain is how long requests may go on after Stop; then they are cut off. Defaults to 3 s.
	Drain time.Duration
	// Failed is told if serving ends by itself. Defaults to nothing.
	Failed func(error)
	// Logger is told about connections that fail. Defaults to none.
	Logger *slog.Logger
}

// HTTP is a service that serves HTTP. Stop ends the requests' contexts first, so that streams end by themselves.
func HTTP(name string, cfg HTTPConfig) Service {
	if cfg.Drain == 0 {
		cfg.Drain = 3 * time.Second
	}
	if cfg.Failed == nil {
		cfg.Failed = func(error) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	base, endRequests := context.WithCancelCause(context.Background())
	server := &http.Server{
		Handler:           cfg.Handler,
		TLSConfig:         cfg.TLS,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return base },
	}
	done := make(chan struct{})
	serve := func() {
		defer close(done)
		var err error
		if cfg.TLS != nil {
			err = server.ServeTLS(cfg.Listener, "", "")
		} else {
			err = server.Serve(cfg.Listener)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			cfg.Failed(err)
		}
	}
	return Service{
		Name:  name,
		Start: func(context.Context) error { go serve(); return nil },
		Stop: func(ctx context.Context) error {
			endRequests(ErrStopped)
			ctx, cancel := context.WithTimeout(ctx, cfg.Drain)
			defer cancel()
			err := server.Shutdown(ctx)
			if errors.Is(err, context.DeadlineExceeded) {
				err = server.Close()
			}
			<-done
			return err
		},
	}
}
