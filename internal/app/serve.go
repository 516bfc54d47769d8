package app

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"go.temporal.io/sdk/client"

	"github.com/quicflow/quicflow/api"
	"github.com/quicflow/quicflow/internal/service"
	"github.com/quicflow/quicflow/internal/telemetry"
	"github.com/quicflow/quicflow/web"
)

// listen opens the ports of the API and, where they are wanted, of the metrics.
func (a *App) listen(ctx context.Context) (apiListener, metricsListener net.Listener, err error) {
	if a.apiTLS, err = apiTLS(a.cfg.Server); err != nil {
		return nil, nil, err
	}
	open := func(key, addr string) (l net.Listener, err error) {
		if l, err = listen(key, addr); err != nil {
			return nil, err
		}
		// Closed here if the start does not come as far as the server that would close it.
		return l, a.services.Start(ctx, service.Service{Name: key, Stop: func(context.Context) error { _ = l.Close(); return nil }})
	}
	if apiListener, err = open("server.api_addr", a.cfg.Server.APIAddr); err != nil {
		return nil, nil, err
	}
	if addr := a.cfg.Metrics.Addr; addr != "" {
		if metricsListener, err = open("metrics.addr", addr); err != nil {
			return nil, nil, err
		}
	}
	return apiListener, metricsListener, nil
}

// serve begins to answer.
func (a *App) serve(ctx context.Context, apiListener, metricsListener net.Listener) error {
	scheme := "http://"
	if a.apiTLS != nil {
		scheme = "https://"
	}
	a.endpoint = Endpoint{API: scheme + reachable(apiListener.Addr()), QUIC: reachable(a.hub.Addr()), UI: a.cfg.Temporal.UIURL}
	if a.temporalUI != nil {
		a.endpoint.UI = a.endpoint.API + "/temporal/"
	}
	sessionKey, err := api.LoadSessionKey(a.dir.file("session.key"))
	if err != nil {
		return err
	}
	console, built := web.Console()
	if !built {
		a.logger.Warn("the console was not built; `make web` builds it")
	}
	handler, err := api.New(api.Config{
		Console:       console,
		Store:         a.store,
		Rollouts:      a.rollouts,
		Jobs:          a.jobs,
		Schedules:     a.schedules,
		Messages:      a.hub,
		Limits:        a.jobLimits(),
		NoBatch:       !a.cfg.Batch.Enabled,
		Bus:           a.bus,
		Joins:         a.joins,
		Artifacts:     a.artifacts,
		Revoked:       func(clientID string) { a.hub.Disconnect(clientID) },
		TemporalUI:    a.temporalUI,
		TemporalUIURL: a.cfg.Temporal.UIURL,

		TemporalNamespace: a.cfg.Temporal.Namespace,
		AgentPort:         port(a.hub.Addr()),

		Checks:     map[string]api.Check{"database": a.store.Ping, "temporal": a.checkTemporal},
		System:     a.system(),
		SessionKey: sessionKey,
		Version:    a.cfg.Version,
		Logger:     a.logger,
	})
	if err != nil {
		return err
	}
	if metricsListener != nil {
		a.metricsURL = scheme + reachable(metricsListener.Addr()) + "/metrics"
		err := a.services.Start(ctx, service.HTTP("metrics", service.HTTPConfig{
			Listener: metricsListener, Handler: telemetry.Handler(a.registry, a.counted), TLS: a.apiTLS, Failed: a.fail, Logger: a.logger,
		}))
		if err != nil {
			return err
		}
	}
	return a.services.Start(ctx, service.HTTP("API", service.HTTPConfig{
		Listener: apiListener, Handler: handler, TLS: a.apiTLS, Failed: a.fail, Logger: a.logger,
	}))
}

// port gives the port of an address, 0 if it has none.
func port(addr net.Addr) int {
	_, text, err := net.SplitHostPort(addr.String())
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}

func (a *App) checkTemporal(ctx context.Context) error {
	if _, err := a.temporal.CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
		return fmt.Errorf("ask Temporal: %w", err)
	}
	return nil
}
