package main

import (
	"cmp"
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
	flags.StringVarP(&o.output, "output", "o", "table", "table, json or yaml")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
}

// check fills in the environment and what a local server has left in its data directory.
func (o *options) check(getenv func(string) string) error {
	if o.output != "table" && o.output != "json" && o.output != "yaml" {
		return usagef("--output %q is none of table, json, yaml", o.output)
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
	found, err := auth.FindServer(o.dataDir)
	if errors.Is(err, auth.ErrNoServer) {
		err = fmt.Errorf("%w: start quic-server, or name another with --server", err)
	}
	if err != nil && o.server == "" && (named || !errors.Is(err, auth.ErrNoServer) && !errors.Is(err, fs.ErrPermission)) {
		return err
	}
	local := found.API
	if o.server == "" {
		o.server = cmp.Or(local, apiclient.DefaultServer)
	}
	// The token of this machine's server is for that server alone: not for another machine, nor for whoever else listens on
	// this one.
	if o.token != "" || local == "" || !samePort(o.server, local) {
		return nil
	}
	o.token = found.Token
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

// json says whether programs read what is written.
func (c *cli) json() bool { return c.options.output != "table" }
