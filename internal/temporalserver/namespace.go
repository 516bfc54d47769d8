package temporalserver

import (
	"fmt"

	sqliteschema "go.temporal.io/server/schema/sqlite"
	"google.golang.org/protobuf/types/known/durationpb"
)

// createNamespace writes the namespace into the database if it is missing, with its search attributes: made before the
// server starts, both are there for its very first request. The helper is SQLite's by name and works on any SQL store.
func (s *Server) createNamespace() error {
	ns, err := sqliteschema.NewNamespaceConfig(clusterName, s.cfg.Namespace, false, s.cfg.SearchAttributes)
	if err != nil {
		return fmt.Errorf("describe namespace %q: %w", s.cfg.Namespace, err)
	}
	ns.Detail.Config.Retention = durationpb.New(s.cfg.Retention)
	if err := sqliteschema.CreateNamespaces(s.store.main, ns); err != nil {
		return fmt.Errorf("create namespace %q: %w", s.cfg.Namespace, err)
	}
	return nil
}
