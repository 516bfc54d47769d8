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
			{ClientID: "h000", Labels: map[string]string{"env": "prod"}, OS: "linux", AgentVersion: "1.2", Hostname: "a"},
			{ClientID: "h001", Labels: map[string]string{"env": "prod", "slots": "10"}, OS: "darwin", AgentVersion: "1.3", Hostname: "b"},
			{ClientID: "h002", Labels: map[string]string{"env": "test", "odd": `"<>&'%_`}, OS: "linux"},
		})
		require.NoError(f, err)
		require.NoError(f, f.StoreFacts(f.ctx(), []release.ClientFacts{
			{ClientID: "h000", JSON: []byte(`{"memory_mb": 8000, "disk": {"gb": 500}}`)},
			{ClientID: "h001", JSON: []byte(`{"memory_mb": 2000, "disk": {"gb": 50}}`)},
		}))
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
			{targets: release.Targets{Selector: "env in (prod,test)"}, want: "h000 h001 h002"},
			{targets: release.Targets{Selector: "env notin (prod,none)"}, want: "h002 h003"},
			{targets: release.Targets{Selector: "os in (linux,plan9),env=p*"}, want: "h000"},
			{targets: release.Targets{Selector: "id in (h000,h001,h009)"}, want: "h000 h001"},
			{targets: release.Targets{Selector: "slots>9"}, want: "h001"},
			{targets: release.Targets{Selector: "status=online"}, want: "h000 h001 h002"},
			{targets: release.Targets{Selector: "status!=online"}, want: "h003"},
			{targets: release.Targets{Selector: "memory_mb>=4096"}, want: "h000"},
			{targets: release.Targets{Selector: "fact.disk.gb<100,env=prod"}, want: "h001"},
			{targets: release.Targets{Selector: "!facts.disk"}, want: "h002 h003"},
			{targets: release.Targets{Selector: `odd="<>&'%_`}, want: "h002"},
			{targets: release.Targets{Selector: "agent_version=1.*,hostname!=b"}, want: "h000"},
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
	"clients are selected by page": func(f *fixture) {
		f.join(6)
		_, err := f.ConnectClients(f.ctx(), []release.ClientSession{
			{ClientID: "h000", Labels: map[string]string{"env": "prod"}, At: f.now()},
			{ClientID: "h001", Labels: map[string]string{"env": "prod"}, At: f.now()},
			{ClientID: "h003", Labels: map[string]string{"env": "prod"}, At: f.now()},
			{ClientID: "h004", Labels: map[string]string{"env": "prod"}, At: f.now()},
		})
		require.NoError(f, err)
		require.NoError(f, f.RevokeClient(f.ctx(), "h001"))
		require.NoError(f, f.DisconnectClients(f.ctx(), []release.ClientEnd{{ClientID: "h003", Epoch: 1, At: f.now()}}))
		for _, test := range []struct {
			filter store.ClientFilter
			want   string
			total  int
		}{
			{store.ClientFilter{Selector: "*"}, "h000 h002 h003 h004 h005", 5},
			{store.ClientFilter{Selector: "env=prod"}, "h000 h003 h004", 3},
			{store.ClientFilter{Selector: "env=prod", Limit: 2}, "h000 h003", 3},
			{store.ClientFilter{Selector: "env=prod", Limit: 2, Offset: 2}, "h004", 3},
			{store.ClientFilter{Selector: "env=prod", Limit: 2, Offset: 9}, "", 3},
			{store.ClientFilter{Selector: "env=prod", Status: release.ClientOnline}, "h000 h004", 2},
			{store.ClientFilter{Selector: "status=reconnecting"}, "h003", 1},
			{store.ClientFilter{Selector: "!env", Search: "H005"}, "h005", 1},
			{store.ClientFilter{Selector: "env=none"}, "", 0},
		} {
			clients, total, err := f.Clients(f.ctx(), test.filter)
			require.NoError(f, err)
			require.Equal(f, test.want, ids(clients), "%+v", test.filter)
			require.Equal(f, test.total, total, "%+v", test.filter)
		}
		_, _, err = f.Clients(f.ctx(), store.ClientFilter{Selector: "a b"})
		require.ErrorIs(f, err, release.ErrInvalid)
		require.ErrorContains(f, err, `selector: "a b" is none of`)
	},
	"targets are previewed": func(f *fixture) {
		f.join(6)
		f.connect("node", "h000", "h001", "h002", "h003", "h005")
		require.NoError(f, f.DisconnectClients(f.ctx(), []release.ClientEnd{
			{ClientID: "h002", Epoch: 1, At: f.now()}, {ClientID: "h003", Epoch: 1, Goodbye: true, At: f.now()}}))
		require.NoError(f, f.RevokeClient(f.ctx(), "h005"))
		preview := func(t release.Targets) store.TargetPreview {
			f.Helper()
			p, err := f.PreviewTargets(f.ctx(), t, 2)
			require.NoError(f, err)
			return p
		}
		p := preview(release.Targets{Selector: "*"})
		require.Equal(f, "h000 h001", ids(p.Clients))
		require.Equal(f, release.ClientOnline, p.Clients[0].Status)
		p.Clients = nil
		require.Equal(f, store.TargetPreview{Total: 5, Online: 2, Reconnecting: 1, Offline: 2}, p)
		p = preview(release.Targets{Clients: []string{"nobody", "h004", "h000", "h004", "h005"}})
		require.Equal(f, "h000 h004", ids(p.Clients))
		p.Clients = nil
		require.Equal(f, store.TargetPreview{Total: 2, Online: 1, Offline: 1, Unknown: []string{"h005", "nobody"}}, p)
		p = preview(release.Targets{Clients: []string{"h000", "h003", "x"}, Selector: "status=offline"})
		require.Equal(f, "h003", ids(p.Clients))
		require.Equal(f, []string{"x"}, p.Unknown)
		require.Zero(f, preview(release.Targets{Selector: "a=b"}).Total)
		for _, t := range []release.Targets{{}, {Selector: ","}} {
			_, err := f.PreviewTargets(f.ctx(), t, 2)
			require.ErrorIs(f, err, release.ErrInvalid)
		}
	},
}

func ids(clients []release.Client) string {
	var ids []string
	for _, c := range clients {
		ids = append(ids, c.ID)
	}
	return strings.Join(ids, " ")
}
