package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quicflow/quicflow/internal/apiclient"
	"github.com/quicflow/quicflow/internal/auth"
)

// options are the flags of every command.
type options struct {
	server, token, dataDir, caFile, output string
}

func (o *options) register(root *cobra.Command) {
	flags := root.PersistentFlags()
	flags.StringVar(&o.server, "server", "", "URL of the server (QUICFLOW_SERVER; default: the local one, else "+apiclient.DefaultServer+")")
	flags.StringVar(&o.token, "token", "", "API token (QUICFLOW_TOKEN; default: the local server's)")
	flags.StringVar(&o.dataDir, "data-dir", "", "data directory of the local server (default /var/lib/quicflow/server for root, else $XDG_STATE_HOME/quicflow/server)")
	flags.StringVar(&o.caFile, "cacert", "", "PEM file with the authorities to trust (default: the system's)")
	flags.StringVarP(&o.output, "output", "o", "table", "table or json")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// check fills in the environment and what a local server has left in its data directory.
func (o *options) check(getenv func(string) string) error {
	if o.output != "table" && o.output != "json" {
		return usagef("--output %q is neither table nor json", o.output)
	}
	if o.server == "" {
		o.server = getenv("QUICFLOW_SERVER")
	}
	if o.token == "" {
		o.token = getenv("QUICFLOW_TOKEN")
	}
	named := o.dataDir != ""
	if !named {
		o.dataDir = defaultDataDir(getenv)
	}
	local, err := localServer(o.dataDir)
	if err != nil && o.server == "" && (named || !errors.Is(err, errNoServer) && !errors.Is(err, fs.ErrPermission)) {
		return err
	}
	if o.server == "" {
		o.server = cmp.Or(local, apiclient.DefaultServer)
	}
	// The token of this machine's server is for that server alone: not for another machine, nor for whoever else listens on
	// this one.
	if o.token != "" || local == "" || !samePort(o.server, local) {
		return nil
	}
	token, err := os.ReadFile(filepath.Join(o.dataDir, "admin.token"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("read the local server's token: %w", err)
	}
	o.token = strings.TrimSpace(string(token))
	if !strings.HasPrefix(o.server, "https:") {
		o.server = local // localhost may be another address, with another user's program at its port
	}
	return nil
}

func defaultDataDir(getenv func(string) string) string {
	if os.Geteuid() == 0 {
		return "/var/lib/quicflow/server"
	}
	state := getenv("XDG_STATE_HOME")
	if state == "" {
		state = filepath.Join(getenv("HOME"), ".local", "state")
	}
	return filepath.Join(state, "quicflow", "server")
}

var errNoServer = errors.New("no server runs")

// localServer gives the address that the server which runs on a data directory has written there.
func localServer(dataDir string) (string, error) {
	file := filepath.Join(dataDir, "endpoint.json")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !auth.ServerRuns(dataDir) {
		return "", fmt.Errorf("%w on %s: start quic-server, or name another with --server", errNoServer, dataDir)
	}
	if err != nil {
		return "", fmt.Errorf("find the local server: %w", err)
	}
	var endpoint struct {
		API string `json:"api"`
	}
	if err := json.Unmarshal(text, &endpoint); err != nil {
		return "", fmt.Errorf("find the local server in %s: %w", file, err)
	}
	return endpoint.API, nil
}

// samePort says whether a URL can mean a server of this machine.
func samePort(server, local string) bool {
	u, err := url.Parse(server)
	l, lerr := url.Parse(local)
	if err != nil || lerr != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()) && u.Scheme == l.Scheme && u.Port() == l.Port()
}

// api gives the client for the server of the options.
func (c *cli) api() (*apiclient.API, error) { return c.apiThatWaits(0) }

// apiThatWaits is api for requests that take as long as an agent may, and then some.
func (c *cli) apiThatWaits(agent time.Duration) (*apiclient.API, error) {
	config := apiclient.Config{Server: c.options.server, Token: c.options.token, CAFile: c.options.caFile}
	if agent > 0 {
		config.AnswerTimeout = agent + time.Minute
	}
	return apiclient.New(config)
}

func (c *cli) json() bool { return c.options.output == "json" }
