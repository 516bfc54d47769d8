package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
)

// Agents die between two steps of theirs, before and after their turn. The rollout waits for them while they may come
// back, and none runs a step twice.
func TestAgentKilledBetweenSteps(t *testing.T) {
	t.Parallel()
	s := startServer(t, serverConfig{})
	agents := startAgents(t, s, 3)
	h := newHosts(t)
	s.project("web", h)
	s.version("web", "1.0", tracing(0))
	s.version("web", "2.0", tracing(300*time.Millisecond))
	s.installed("web", "1.0")

	task := s.deploy("web", "2.0", object{"canary": object{"percent": 30, "promote": "manual"}})
	s.reach(task.ID, 30*time.Second, "the canary is done", func(t release.Task) bool { return t.Phase == release.PhasePromotion })
	canary := inState(s.targets(task.ID), release.TargetSucceeded)
	require.Len(t, canary, 1)
	for _, a := range agents {
		a.proc.kill9()
	}
	s.steer(task.ID, "promote")
	s.reach(task.ID, 30*time.Second, "the wave begins", func(t release.Task) bool { return t.Phase == release.PhaseWave })
	for _, a := range agents {
		a.start()
	}

	done := s.finish(task.ID, time.Minute)
	require.Equal(t, release.StatusSucceeded, done.Status, done.Reason)
	for _, a := range agents {
		require.Equal(t, []string{"install 1.0", "update 2.0"}, h.trace(a.id))
		s.requireLog(task.ID, a.id, tracedLines(a.id, "update", "2.0", 300*time.Millisecond))
	}
}

// An agent dies while its script runs, and comes back: the script has gone on, and the agent takes up where it was.
func TestAgentKilledDuringStep(t *testing.T) {
	t.Parallel()
	s := startServer(t, serverConfig{})
	agents := startAgents(t, s, 2)
	h := newHosts(t)
	s.project("web", h)
	const lasting = 2 * time.Second
	s.version("web", "1.0", tracing(lasting))

	task := s.deploy("web", "1.0", object{})
	victim := agents[0]
	eventually(t, 30*time.Second, "the script runs", func() (bool, any) { return len(h.trace(victim.id)) > 0, s.task(task.ID) })
	victim.proc.kill9()
	victim.start()

	done := s.finish(task.ID, time.Minute)
	require.Equal(t, release.StatusSucceeded, done.Status, done.Reason)
	for _, a := range agents {
		require.Equal(t, []string{"install 1.0"}, h.trace(a.id))
		s.requireLog(task.ID, a.id, tracedLines(a.id, "install", "1.0", lasting))
	}
}

// An agent dies while its script runs, and does not come back: the rollout gives it up as unknown. When it is back after
// all, it tells how the step ended, and the answer is corrected.
func TestAgentGoneDuringStep(t *testing.T) {
	t.Parallel()
	s := startServer(t, serverConfig{offlineGrace: 3})
	agents := startAgents(t, s, 2)
	h := newHosts(t)
	s.project("web", h)
	const lasting = time.Second
	s.version("web", "1.0", tracing(lasting))

	task := s.deploy("web", "1.0", object{"max_failures": "1"})
	victim := agents[0]
	eventually(t, 30*time.Second, "the script runs", func() (bool, any) { return len(h.trace(victim.id)) > 0, s.task(task.ID) })
	victim.proc.kill9()

	done := s.finish(task.ID, 90*time.Second)
	require.Equal(t, release.StatusPartial, done.Status, done.Reason)
	require.Equal(t, release.TargetUnknown, s.targets(task.ID)[victim.id].State)
	require.NotEmpty(t, s.targets(task.ID)[victim.id].Error)

	victim.start()
	eventually(t, 30*time.Second, "the late result is taken", func() (bool, any) {
		target := s.targets(task.ID)[victim.id]
		return target.State == release.TargetSucceeded, target
	})
	require.Equal(t, "1.0", s.installedVersions("web")[victim.id])
	require.Equal(t, []string{"install 1.0"}, h.trace(victim.id))
	s.requireLog(task.ID, victim.id, tracedLines(victim.id, "install", "1.0", lasting))
}

// The network between an agent and the hub goes away while a script runs, for longer than the hub keeps the session.
// The script goes on, and its result and output arrive once the network is back.
func TestConnectionCutDuringStep(t *testing.T) {
	t.Parallel()
	s := startServer(t, serverConfig{})
	network := startRelay(t, s.addr)
	agents := startAgentsVia(t, s, network.addr, 2)
	h := newHosts(t)
	s.project("web", h)
	const lasting = 3 * time.Second
	s.version("web", "1.0", tracing(lasting))

	task := s.deploy("web", "1.0", object{})
	eventually(t, 30*time.Second, "both scripts run", func() (bool, any) { return h.traced("1.0") == 2, s.task(task.ID) })
	network.cut.Store(true)
	for _, a := range agents {
		s.await(a.id, release.ClientReconnecting)
	}
	require.Equal(t, release.StatusRunning, s.task(task.ID).Status)
	network.cut.Store(false)

	done := s.finish(task.ID, time.Minute)
	require.Equal(t, release.StatusSucceeded, done.Status, done.Reason)
	for _, a := range agents {
		require.Equal(t, []string{"install 1.0"}, h.trace(a.id))
		s.requireLog(task.ID, a.id, tracedLines(a.id, "install", "1.0", lasting))
	}
}
