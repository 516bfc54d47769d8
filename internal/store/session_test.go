package store_test

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
)

var sessionTests = map[string]func(*fixture){
	"a session and its end": func(f *fixture) {
		f.join(1)
		c, err := f.ClientByID(f.ctx(), "h000")
		require.NoError(f, err)
		require.Equal(f, release.ClientOffline, c.Status)

		entries, err := f.ConnectClients(f.ctx(), []release.ClientSession{{
			ClientID: "h000", NodeID: "node", Address: "192.0.2.1:7", AgentVersion: "1.2", Hostname: "box\x00\xff", OS: "linux", Arch: "arm64",
			Labels: map[string]string{"env": "prod", "odd\x00\xff": "\x00"}, JournalID: "j", Generation: 1, BootID: "b", At: f.now(),
		}, {ClientID: "stranger"}})
		require.NoError(f, err)
		require.Equal(f, map[string]release.ClientEntry{"h000": {Epoch: 1}}, entries)
		c, err = f.ClientByID(f.ctx(), "h000")
		require.NoError(f, err)
		now := f.now()
		require.Equal(f, release.Client{
			ID: "h000", Online: true, Status: release.ClientOnline, Labels: map[string]string{"env": "prod", "odd\uFFFD\uFFFD": "\uFFFD"},
			Hostname: "box\uFFFD\uFFFD", OS: "linux", Arch: "arm64", AgentVersion: "1.2", NodeID: "node", Address: "192.0.2.1:7",
			JoinedAt: now, ConnectedAt: &now, LastSeenAt: &now,
		}, c)

		f.advance(time.Minute)
		require.NoError(f, f.TouchNode(f.ctx(), "node", f.now()))
		require.NoError(f, f.TouchNode(f.ctx(), "other", f.now().Add(time.Hour)))
		c, err = f.ClientByID(f.ctx(), "h000")
		require.NoError(f, err)
		require.Equal(f, f.now(), *c.LastSeenAt)
		heard := f.now().Add(time.Second)
		f.advance(2 * time.Second)
		require.NoError(f, f.TouchNode(f.ctx(), "node", f.now()))
		require.NoError(f, f.DisconnectClients(f.ctx(), []release.ClientEnd{{ClientID: "h000", Epoch: 1, At: f.now(), Seen: heard}}))
		c, err = f.ClientByID(f.ctx(), "h000")
		require.NoError(f, err)
		require.Equal(f, release.ClientReconnecting, c.Status)
		require.Equal(f, heard, *c.LastSeenAt, "what its node says later is not about it")
		require.Equal(f, f.now(), *c.DisconnectedAt)
		f.advance(90 * time.Second)
		f.requireStatus("h000", release.ClientOffline)
	},
	"a goodbye needs no grace": func(f *fixture) {
		f.join(1)
		f.connect("node", "h000")
		require.NoError(f, f.DisconnectClients(f.ctx(), []release.ClientEnd{{ClientID: "h000", Epoch: 1, Goodbye: true, At: f.now()}}))
		f.requireStatus("h000", release.ClientOffline)
		require.EqualValues(f, 2, f.connect("node", "h000")["h000"])
		f.requireStatus("h000", release.ClientOnline)
	},
	"a stale end changes nothing": func(f *fixture) {
		f.join(1)
		f.connect("old", "h000")
		f.connect("new", "h000")
		require.NoError(f, f.DisconnectClients(f.ctx(), []release.ClientEnd{{ClientID: "h000", Epoch: 1, Goodbye: true, At: f.now()}}))
		f.requireStatus("h000", release.ClientOnline)
		require.NoError(f, f.ReleaseNode(f.ctx(), "old", f.now()))
		f.requireStatus("h000", release.ClientOnline)
		require.NoError(f, f.DisconnectClients(f.ctx(), []release.ClientEnd{
			{ClientID: "h000", Epoch: 2, At: f.now()}, {ClientID: "h000", Epoch: 1, At: f.now()}}))
		f.requireStatus("h000", release.ClientReconnecting)
	},
	"epochs rise whoever connects": func(f *fixture) {
		ids := f.join(60) // more than SQLite's batch
		seen := make([]map[string]release.ClientEntry, 8)
		errs := together(len(seen), func(i int) (err error) {
			sessions := make([]release.ClientSession, len(ids))
			for k, id := range ids {
				sessions[k] = release.ClientSession{ClientID: id, NodeID: fmt.Sprint("node", i), JournalID: "j", At: f.now()}
			}
			if i%2 == 1 {
				slices.Reverse(sessions)
			}
			seen[i], err = f.ConnectClients(f.ctx(), sessions)
			if err == nil {
				err = f.TouchNode(f.ctx(), fmt.Sprint("node", i), f.now())
			}
			return err
		})
		require.NoError(f, errors.Join(errs...))
		for _, id := range ids {
			var epochs []int64
			for _, s := range seen {
				epochs = append(epochs, s[id].Epoch)
			}
			slices.Sort(epochs)
			require.Equal(f, []int64{1, 2, 3, 4, 5, 6, 7, 8}, epochs)
		}
	},
	"a hub that starts releases what it held": func(f *fixture) {
		f.join(2)
		f.connect("a", "h000")
		f.connect("b", "h001")
		f.advance(time.Hour)
		require.NoError(f, f.ReleaseNode(f.ctx(), "a", f.now()))
		f.requireStatus("h000", release.ClientReconnecting)
		f.requireStatus("h001", release.ClientOnline)
		require.NoError(f, f.DisconnectClients(f.ctx(), []release.ClientEnd{{ClientID: "h000", Epoch: 1, Goodbye: true, At: f.now()}}))
		f.requireStatus("h000", release.ClientReconnecting)
		f.advance(90 * time.Second)
		f.requireStatus("h000", release.ClientOffline)
	},
	"a replaced journal leaves its steps unknown": func(f *fixture) {
		for _, second := range []release.ClientSession{
			{JournalID: "another", Generation: 9},
			{JournalID: "journal of h000", Generation: 0},                  // a restored snapshot
			{JournalID: "journal of h000", Generation: 1, BootID: "other"}, // of a whole disk
		} {
			name := "p" + fmt.Sprint(second.Generation)
			versions := f.project(name, "1.0", "2.0")
			v1, v2 := versions["1.0"], versions["2.0"]
			if second.Generation == 9 {
				f.join(3)
			}
			f.connect("node", "h000", "h001", "h002")
			f.release(name, &v1, "h000", "h001", "h002")
			task := f.deploy(name, &v2, "h000", "h001", "h002")
			steps := f.dispatch(task, release.StepDeploy, "h000", "h001")

			second.ClientID, second.NodeID, second.At = "h000", "node", f.now()
			_, err := f.ConnectClients(f.ctx(), []release.ClientSession{second, // its journal is new
				{ClientID: "h001", JournalID: "journal of h001", Generation: 2, At: f.now()},
				{ClientID: "h002", JournalID: "another", Generation: 1, At: f.now()}}) // nothing was dispatched there
			require.NoError(f, err)
			require.Equal(f, "h000 unknown, h001 running, h002 pending", f.states(task))
			require.Contains(f, f.target(task, "h000").Error, "journal")
			require.Equal(f, "1.0 unknown (2.0)", f.runs(name, "h000"))
			require.Equal(f, "1.0 installed", f.runs(name, "h001"))

			f.report(steps["h000"], release.StepSucceeded)
			require.Equal(f, "h000 succeeded, h001 running, h002 pending", f.states(task))
			require.Equal(f, "2.0 installed", f.runs(name, "h000"))
			f.report(steps["h001"], release.StepSucceeded)
			f.connect("node", "h000", "h001", "h002")
		}
	},
}

func (f *fixture) requireStatus(id string, want release.ClientStatus) {
	f.Helper()
	c, err := f.ClientByID(f.ctx(), id)
	require.NoError(f, err)
	require.Equal(f, want, c.Status)
	require.Equal(f, want == release.ClientOnline, c.Online)
}
