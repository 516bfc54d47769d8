package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/service"
	"github.com/quicflow/quicflow/internal/temporalserver"
	"github.com/quicflow/quicflow/workflows"
)

// temporalTimeout bounds how long a cluster may take to answer at start.
const temporalTimeout = 20 * time.Second

// startTemporal connects to the cluster of temporal.address, or starts the built-in server and connects to that.
func (a *App) startTemporal(ctx context.Context) error {
	worker.SetBinaryChecksum("quic-server " + a.cfg.Version) // else the SDK reads and hashes the whole program: half a second
	var options client.Options
	var err error
	if a.cfg.Temporal.Address == "" {
		options, err = a.startEmbedded(ctx)
	} else {
		options, err = a.clusterOptions()
	}
	if err != nil {
		return err
	}
	options.Logger = sdklog.NewStructuredLogger(atLeast(&a.sdkLevel, a.logger.With("component", "temporal")))
	options.Identity = "quic-server@" + a.nodeID
	return a.services.Start(ctx, service.Service{
		Name: "Temporal client",
		Start: func(ctx context.Context) error {
			if a.temporal, err = a.connect(ctx, options); err != nil {
				return err
			}
			a.searchAttributes = ensureSearchAttributes(ctx, a.temporal, a.cfg.Temporal.Namespace, a.logger)
			return nil
		},
		Stop: func(context.Context) error { a.temporal.Close(); return nil },
	})
}

func (a *App) startEmbedded(ctx context.Context) (client.Options, error) {
	cfg := temporalserver.Config{
		DataDir:          a.dir.path,
		Namespace:        a.cfg.Temporal.Namespace,
		SearchAttributes: attributeTypes(),
		UIPath:           "/temporal",
		SecureCookies:    a.apiTLS != nil,
		OnLost:           a.fail,
		Logger:           a.logger.With("component", "temporal"),
	}
	if a.cfg.Database.Postgres() {
		cfg.Postgres = a.cfg.Database.ConnString()
	}
	var server *temporalserver.Server
	err := a.services.Start(ctx, service.Service{
		Name: "embedded Temporal",
		Start: func(ctx context.Context) (err error) {
			server, err = temporalserver.Start(ctx, cfg)
			return err
		},
		Stop: func(ctx context.Context) error { return server.Stop(ctx) },
	})
	if err != nil {
		return client.Options{}, err
	}
	a.temporalUI = server.UIHandler()
	return server.ClientOptions(), nil
}

func (a *App) clusterOptions() (client.Options, error) {
	tls, err := temporalTLS(a.cfg.Temporal.TLS)
	if err != nil {
		return client.Options{}, err
	}
	return client.Options{
		HostPort:          a.cfg.Temporal.Address,
		Namespace:         a.cfg.Temporal.Namespace,
		ConnectionOptions: client.ConnectionOptions{TLS: tls},
	}, nil
}

// connect dials and looks for the namespace.
func (a *App) connect(ctx context.Context, options client.Options) (client.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, temporalTimeout)
	defer cancel()
	c, err := client.DialContext(ctx, options)
	if err != nil {
		return nil, release.Unavailable(err, "temporal.address: there is no answer from Temporal at %s: %v", options.HostPort, err)
	}
	_, err = c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: options.Namespace})
	if err == nil {
		return c, nil
	}
	c.Close()
	var missing *serviceerror.NamespaceNotFound
	if errors.As(err, &missing) {
		return nil, release.Invalid("temporal.namespace", "%q does not exist in the cluster at %s: create it, with a retention of 30 days or more", options.Namespace, options.HostPort)
	}
	return nil, fmt.Errorf("look for Temporal's namespace %q: %w", options.Namespace, err)
}

func attributeTypes() map[string]enumspb.IndexedValueType {
	types := map[string]enumspb.IndexedValueType{}
	for _, key := range []temporal.SearchAttributeKeyKeyword{workflows.AttributeProject, workflows.AttributeVersion, workflows.AttributeStatus} {
		types[key.GetName()] = key.GetValueType()
	}
	return types
}

// ensureSearchAttributes says whether the namespace knows our search attributes, and registers those that it does not. A
// cluster may refuse that; everything but the search for workflows in Temporal's own UI works without.
func ensureSearchAttributes(ctx context.Context, c client.Client, namespace string, logger *slog.Logger) bool {
	ctx, cancel := context.WithTimeout(ctx, temporalTimeout)
	defer cancel()
	missing := attributeTypes()
	known, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	if err == nil {
		for name, kind := range known.GetCustomAttributes() {
			if missing[name] == kind {
				delete(missing, name)
			}
		}
		if len(missing) > 0 {
			_, err = c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{Namespace: namespace, SearchAttributes: missing})
		}
	}
	if err != nil {
		logger.Warn("Temporal does not take our search attributes: going on without", "error", err)
		return false
	}
	return true
}

// TemporalVersion is the version of the Temporal server that is built in.
const TemporalVersion = temporalserver.Version
