package hub_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/hub"
	"github.com/quicflow/quicflow/internal/wire"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

func factsOf(hash uint64, object string) *quicflowv1.ToHub {
	return &quicflowv1.ToHub{Body: &quicflowv1.ToHub_Facts{Facts: &quicflowv1.Facts{Hash: hash, Json: []byte(object)}}}
}

// connectWith says a hello with this hash of facts.
func (b *bench) connectWith(who identity, hash uint64) *agent {
	b.t.Helper()
	hello := helloOf("journal-"+who.id, "boot")
	hello.GetHello().FactsHash = hash
	a := b.open(who)
	a.send(hello)
	a.welcome = a.receive().GetWelcome()
	require.NotNil(b.t, a.welcome)
	return a
}

func TestFactsAreAskedForOnce(t *testing.T) {
	b := start(t)
	who := b.join("web-1")
	require.False(t, b.connectWith(who, 0).welcome.WantFacts, "it has none")
	a := b.connectWith(who, 7)
	require.True(t, a.welcome.WantFacts)
	a.send(factsOf(7, `{"cpus": 4}`))
	eventually(t, "they are stored", func() bool { return b.registry.factsOf("web-1").Hash == 7 })
	require.JSONEq(t, `{"cpus": 4}`, string(b.registry.factsOf("web-1").JSON))

	a = b.connectWith(who, 7)
	require.False(t, a.welcome.WantFacts)
	a.send(factsOf(8, `{"cpus": 8}`)) // they have changed
	eventually(t, "they are stored", func() bool { return b.registry.factsOf("web-1").Hash == 8 })
	require.True(t, b.connectWith(who, 9).welcome.WantFacts)
}

func TestFactsThatAreNone(t *testing.T) {
	b := start(t)
	bystander := b.connect(b.join("bystander"))
	large := `{"a": "` + strings.Repeat("x", 16<<10) + `"}`
	for object, reason := range map[string]string{"": "not a JSON object", "[]": "not a JSON object", `{"a"`: "not a JSON object", large: "at most 16384"} {
		a := b.connect(b.join("web-1"))
		a.send(factsOf(1, object))
		a.closedWith(wire.CloseProtocol, reason)
	}
	bystander.alive()
	b.registry.mu.Lock()
	defer b.registry.mu.Unlock()
	require.Empty(t, b.registry.facts)
}

// Whatever an agent sends, of its facts only the newest wait, and sessions go on while they do.
func TestFactsInNumbers(t *testing.T) {
	b := start(t)
	entered, gate := make(chan struct{}, 100), make(chan struct{})
	failures := 1
	b.registry.setScript(func(method string) error {
		if method != "StoreFacts" {
			return nil
		}
		entered <- struct{}{}
		<-gate
		if failures--; failures >= 0 { // one goroutine calls
			return errors.New("database is locked")
		}
		return nil
	})
	open := sync.OnceFunc(func() { close(gate) })
	defer open()
	flood, other := b.connect(b.join("flood")), b.connect(b.join("other"))
	flood.send(factsOf(1, `{"n": 0}`))
	signal(t, "they are being stored", entered)
	const n = 500
	for i := range n {
		flood.send(factsOf(uint64(i+2), fmt.Sprintf(`{"n": %d}`, i+1)))
	}
	other.send(factsOf(1, `{"other": true}`))
	flood.alive() // all were read
	other.alive()
	open()
	eventually(t, "the newest are stored", func() bool { return b.registry.factsOf("flood").Hash == n+1 })
	b.registry.mu.Lock()
	defer b.registry.mu.Unlock()
	var object struct{ N int }
	require.NoError(t, json.Unmarshal(b.registry.facts["flood"].JSON, &object))
	require.Equal(t, n, object.N)
	require.JSONEq(t, `{"other": true}`, string(b.registry.facts["other"].JSON))
	require.Len(t, b.registry.factSets, 2, "the first, and all that came while it was stored")
}

func TestFactsAreStoredBeforeTheHubStops(t *testing.T) {
	b := start(t)
	a := b.connect(b.join("web-1"))
	a.send(factsOf(3, `{}`))
	a.alive()
	b.stop()
	require.EqualValues(t, 3, b.registry.factsOf("web-1").Hash)
}

// The check of certificates shares the call that begins sessions.
func TestRevokedCertificateInABatch(t *testing.T) {
	b := start(t)
	entered, gate := make(chan struct{}, 100), make(chan struct{})
	checks := 0
	b.registry.setScript(func(method string) error {
		switch method {
		case "CertificateValid":
			checks++
		case "ConnectClients":
			entered <- struct{}{}
			<-gate
		}
		return nil
	})
	open := sync.OnceFunc(func() { close(gate) })
	defer open()
	first := b.open(b.join("first"))
	first.send(helloOf("journal", "boot"))
	signal(t, "the first call", entered)
	var all []*agent
	for i := range 9 {
		who := b.join(fmt.Sprint("web-", i))
		if i == 4 {
			who = issue(t, ca, who.id, 0) // another one, that nobody recorded
		}
		a := b.open(who)
		a.send(helloOf("journal", "boot"))
		all = append(all, a)
	}
	eventually(t, "all wait", func() bool { return hub.Queued(b.Hub) == len(all) })
	open()
	require.NotNil(t, first.receive().GetWelcome())
	for i, a := range all {
		answer := a.receive()
		if i == 4 {
			require.Equal(t, quicflowv1.RefusalCode_REFUSAL_CODE_REVOKED, answer.GetRefusal().GetCode())
			require.Contains(t, answer.GetRefusal().GetMessage(), "certificate is revoked or not known here; join again")
			continue
		}
		require.NotNil(t, answer.GetWelcome(), i)
	}
	b.registry.mu.Lock()
	defer b.registry.mu.Unlock()
	require.Equal(t, []int{1, len(all)}, b.registry.batches)
	require.Zero(t, checks)
	require.False(t, b.registry.online["web-4"])
}

// Who shows a revoked certificate does not even disturb the host that has a valid one.
func TestRevokedCertificateTakesNoPlace(t *testing.T) {
	b := start(t)
	who, thief := b.join("web-1"), issue(t, ca, "web-1", 0)
	a := b.connect(who)
	_, answer := b.greet(thief, "journal-web-1", "boot")
	require.Equal(t, quicflowv1.RefusalCode_REFUSAL_CODE_REVOKED, answer.GetRefusal().GetCode())
	a.alive()
	require.True(t, b.registry.isOnline("web-1"))

	b.registry.setScript(func(string) error { return errors.New("database is down") })
	_, answer = b.greet(thief, "journal-web-1", "boot")
	require.Equal(t, quicflowv1.RefusalCode_REFUSAL_CODE_INTERNAL, answer.GetRefusal().GetCode())
	require.Contains(t, answer.GetRefusal().GetMessage(), "could not be checked")
	b.registry.setScript(nil)
	a.alive()

	renewed := b.join("web-1") // the same host with its next certificate
	again := b.connect(renewed)
	a.closedWith(wire.CloseTakenOver, "took over")
	again.alive()
}

// A revoked certificate that is being looked at does not keep out the host that has a valid one.
func TestRevokedCertificateThatWaits(t *testing.T) {
	b := start(t)
	entered, gate := make(chan struct{}, 100), make(chan struct{})
	b.registry.setScript(func(method string) error {
		if method == "ConnectClients" {
			entered <- struct{}{}
			<-gate
		}
		return nil
	})
	open := sync.OnceFunc(func() { close(gate) })
	defer open()
	who, thief := b.join("web-1"), b.open(issue(t, ca, "web-1", 0))
	thief.send(helloOf("other-journal", "other-boot"))
	signal(t, "the thief is looked at", entered)
	a := b.open(who)
	a.send(helloOf("journal-web-1", "boot"))
	eventually(t, "it waits", func() bool { return hub.Queued(b.Hub) == 1 })
	thief.closedWith(wire.CloseTakenOver, "took over")
	open()
	require.NotNil(t, a.receive().GetWelcome())
	a.alive()
	require.Equal(t, 1, b.Connected())
}
