package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/quicflow/quicflow/internal/durable"
)

const endpointFile = "endpoint.json"

// Endpoint is where a running server is reached from its own machine; it is kept in endpoint.json in the data directory, for
// the programs beside it.
type Endpoint struct {
	API  string `json:"api"`  // URL
	QUIC string `json:"quic"` // host:port
	UI   string `json:"ui"`   // URL of the Temporal UI, or "" if there is none
}

func (e Endpoint) write(dir *directory) error {
	text, err := json.MarshalIndent(e, "", "  ")
	if err == nil {
		err = durable.WriteFile(dir.file(endpointFile), append(text, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", endpointFile, err)
	}
	return nil
}

func removeEndpoint(dir *directory) error {
	if err := os.Remove(dir.file(endpointFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", endpointFile, err)
	}
	return nil
}

// greet tells a person at the terminal what there is now.
func (a *App) greet(w io.Writer, token string) {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "  %-12s %s\n", name, value)
		}
	}
	fmt.Fprintf(w, "\nQuicFlow %s is ready.\n", a.cfg.Version)
	line("API", a.endpoint.API)
	line("agents", a.hub.Addr().String()+" (QUIC)")
	line("Temporal UI", a.endpoint.UI)
	line("metrics", a.metricsURL)
	line("data", a.dir.path)
	line("log in", "with the token in "+a.dir.file(adminTokenFile))
	if token != "" {
		fmt.Fprintf(w, "\nThe administrator's token, shown this once: %s\n", token)
	}
	fmt.Fprintln(w)
}
