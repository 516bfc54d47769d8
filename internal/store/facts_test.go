package store_test

import (
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
)

var factsTests = map[string]func(*fixture){
	"facts are wanted until they are stored": func(f *fixture) {
		f.join(2)
		wanted := func(hash uint64) bool {
			f.Helper()
			entries, err := f.ConnectClients(f.ctx(), []release.ClientSession{{ClientID: "h000", FactsHash: hash, At: f.now()}})
			require.NoError(f, err)
			return entries["h000"].WantFacts
		}
		const high = 1<<63 + 7 // no BIGINT
		require.False(f, wanted(0), "it has none")
		require.True(f, wanted(high))
		require.True(f, wanted(high), "they did not come")
		require.NoError(f, f.StoreFacts(f.ctx(), []release.ClientFacts{
			{ClientID: "h000", Hash: 1, JSON: []byte(`{"old": 1}`)},
			{ClientID: "h000", Hash: high, JSON: []byte(`{"cpus": 4, "odd": "\u0000` + "\xff" + `"}`)},
			{ClientID: "stranger", Hash: 1, JSON: []byte(`{}`)},
		}))
		require.False(f, wanted(high))
		require.True(f, wanted(5))
		require.False(f, wanted(0))
		c, err := f.ClientByID(f.ctx(), "h000")
		require.NoError(f, err)
		require.JSONEq(f, `{"cpus": 4, "odd": "\u0000\ufffd"}`, string(c.Facts))
		c, err = f.ClientByID(f.ctx(), "h001")
		require.NoError(f, err)
		require.Nil(f, c.Facts)
		require.NoError(f, f.StoreFacts(f.ctx(), nil))

		require.NoError(f, f.StoreFacts(f.ctx(), []release.ClientFacts{{ClientID: "h000", Hash: 5, JSON: []byte(`{"cpus": 8}`)}}))
		require.False(f, wanted(5))
		c, err = f.ClientByID(f.ctx(), "h000")
		require.NoError(f, err)
		require.JSONEq(f, `{"cpus": 8}`, string(c.Facts))
	},
	"facts of many": func(f *fixture) {
		ids := f.join(f.many())
		facts := make([]release.ClientFacts, len(ids))
		for i, id := range ids {
			facts[i] = release.ClientFacts{ClientID: id, Hash: uint64(i + 1), JSON: fmt.Appendf(nil, `{"number": %d}`, i)}
		}
		require.NoError(f, f.StoreFacts(f.ctx(), facts))
		c, err := f.ClientByID(f.ctx(), ids[len(ids)-1])
		require.NoError(f, err)
		require.JSONEq(f, fmt.Sprintf(`{"number": %d}`, len(ids)-1), string(c.Facts))
	},
	"a session needs a certificate that is valid": func(f *fixture) {
		ids := f.join(f.many())
		for _, id := range ids {
			require.NoError(f, f.RecordCertificate(f.ctx(), id, "serial of "+id, f.now(), "key of "+id))
		}
		require.NoError(f, f.RecordCertificate(f.ctx(), "h003", "another", f.now(), "key of h003"))
		require.NoError(f, f.RevokeClient(f.ctx(), "h001"))
		sessions := make([]release.ClientSession, 0, len(ids)+1)
		for _, id := range ids {
			sessions = append(sessions, release.ClientSession{ClientID: id, NodeID: "node", Serial: "serial of " + id, At: f.now()})
		}
		sessions[2].Serial = "serial of h001" // not its own
		sessions[3].Serial = "another"
		sessions = append(sessions, release.ClientSession{ClientID: "stranger", Serial: "serial of h000"})
		entries, err := f.ConnectClients(f.ctx(), sessions)
		require.NoError(f, err)
		require.Len(f, entries, len(ids))
		for i, id := range ids {
			want := release.ClientEntry{Epoch: 1}
			if i == 1 || i == 2 {
				want = release.ClientEntry{Revoked: true}
			}
			require.Equal(f, want, entries[id], id)
			c, err := f.ClientByID(f.ctx(), id)
			require.NoError(f, err)
			require.Equal(f, !want.Revoked, c.Online, id)
		}
	},
}
