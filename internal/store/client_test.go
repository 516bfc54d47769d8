package store_test

import (
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

var clientTests = map[string]func(*fixture){
	"clients are filtered": func(f *fixture) {
		f.join(6)
		_, err := f.ConnectClients(f.ctx(), []release.ClientSession{
			{ClientID: "h000", Labels: map[string]string{"env": "prod", `a."b`: "x"}, Hostname: "Web_1", At: f.now()},
			{ClientID: "h001", Labels: map[string]string{"env": "test"}, Hostname: "web11", At: f.now()},
			{ClientID: "h002", Labels: map[string]string{"env": ""}, At: f.now()},
			{ClientID: "h003", At: f.now()},
			{ClientID: "h004", At: f.now()},
		})
		require.NoError(f, err)
		require.NoError(f, f.DisconnectClients(f.ctx(), []release.ClientEnd{
			{ClientID: "h003", Epoch: 1, At: f.now().Add(-time.Minute)}, {ClientID: "h004", Epoch: 1, At: f.now().Add(-time.Hour)}}))
		for filter, want := range map[store.ClientFilter]string{
			{}:                                   "h000 h001 h002 h003 h004 h005",
			{Status: release.ClientOnline}:       "h000 h001 h002",
			{Status: release.ClientReconnecting}: "h003",
			{Status: release.ClientOffline}:      "h004 h005",
			{Label: "env=prod"}:                  "h000",
			{Label: "env="}:                      "h002",
			{Label: "env"}:                       "h000 h001 h002",
			{Label: `a."b=x`}:                    "h000",
			{Label: "none"}:                      "",
			{Search: "WEB_"}:                     "h000",
			{Search: "web"}:                      "h000 h001",
			{Search: "%"}:                        "",
			{Search: "\x00'"}:                    "",
			{Search: "h00", Status: release.ClientOnline, Label: "env=test"}: "h001",
		} {
			clients, total, err := f.Clients(f.ctx(), filter)
			require.NoError(f, err)
			require.Equal(f, want, ids(clients), "%+v", filter)
			require.Len(f, clients, total)
		}
		page, total, err := f.Clients(f.ctx(), store.ClientFilter{Limit: 2, Offset: 3})
		require.NoError(f, err)
		require.Equal(f, "h003 h004", ids(page))
		require.Equal(f, 6, total)
		_, err = f.ClientByID(f.ctx(), "none\x00")
		require.ErrorIs(f, err, release.ErrNotFound)
	},
	"targets are resolved": func(f *fixture) {
		f.join(4)
		_, err := f.ConnectClients(f.ctx(), []release.ClientSession{
			{ClientID: "h000", Labels: map[string]string{"env": "prod"}, OS: "linux"},
			{ClientID: "h001", Labels: map[string]string{"env": "prod"}, OS: "darwin"},
			{ClientID: "h002", Labels: map[string]string{"env": "test"}, OS: "linux"},
		})
		require.NoError(f, err)
		for _, test := range []struct {
			targets release.Targets
			want    string
			field   string
		}{
			{targets: release.Targets{Selector: "*"}, want: "h000 h001 h002 h003"},
			{targets: release.Targets{Selector: "env=prod,os=linux"}, want: "h000"},
			{targets: release.Targets{Clients: []string{"h003", "h000", "h003"}}, want: "h000 h003"},
			{targets: release.Targets{Clients: []string{"h003", "h000"}, Selector: "env"}, want: "h000"},
			{targets: release.Targets{Clients: []string{"h003"}, Selector: "env"}, field: "targets"},
			{targets: release.Targets{}, field: "targets"},
			{targets: release.Targets{Selector: "os=plan9"}, field: "targets"},
			{targets: release.Targets{Clients: []string{"h000", "a", "b", "c", "d", "e", "f", "g"}}, field: "targets.clients"},
			{targets: release.Targets{Clients: []string{"a"}, Selector: "*"}, field: "targets.clients"},
			{targets: release.Targets{Selector: "=="}, field: "targets.selector"},
		} {
			got, err := f.ResolveTargets(f.ctx(), test.targets)
			if test.field == "" {
				require.NoError(f, err)
				require.Equal(f, test.want, strings.Join(got, " "))
				continue
			}
			require.ErrorIs(f, err, release.ErrInvalid)
			require.ErrorContains(f, err, test.field+": ")
		}
		_, err = f.ResolveTargets(f.ctx(), release.Targets{Clients: []string{"h000", "a", "b", "c", "d", "e", "f", "g"}})
		require.EqualError(f, err, "targets.clients: a, b, c, d, e and 2 more are not known")
	},
}

func ids(clients []release.Client) string {
	var ids []string
	for _, c := range clients {
		ids = append(ids, c.ID)
	}
	return strings.Join(ids, " ")
}
