package live

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/agent/command"
	agenthost "github.com/quicflow/quicflow/agent/host"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

// builtIn carries out a command of the agent that looks at containers, and gives what it prints.
func builtIn(t *testing.T, kind, payload string) (result any, stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	result, err = agenthost.Commands()[kind].Run(t.Context(), &command.Call{Type: kind, Payload: []byte(payload), Output: func(s quicflowv1.Stream) (io.Writer, error) {
		if s == quicflowv1.Stream_STREAM_STDERR {
			return &errs, nil
		}
		return &out, nil
	}})
	return result, out.String(), errs.String(), err
}

// talker runs a container to its end that QuicFlow knows nothing of, and that prints on both streams.
func (p *project) talker(name string, tty bool) (id string) {
	p.t.Helper()
	ctx := context.Background()
	made, err := p.api.ContainerCreate(ctx, client.ContainerCreateOptions{Name: name, Config: &container.Config{
		Image: image + ":v1", Tty: tty, Labels: map[string]string{"team": "blue"},
		Cmd: []string{"/bin/busybox", "sh", "-c", `echo out 1; echo err 1 >&2; busybox sleep 1; echo out 2; printf 'no end of line'; exit 3`},
	}})
	require.NoError(p.t, err)
	p.t.Cleanup(func() {
		_, err := p.api.ContainerRemove(ctx, made.ID, client.ContainerRemoveOptions{Force: true})
		require.NoError(p.t, err)
	})
	_, err = p.api.ContainerStart(ctx, made.ID, client.ContainerStartOptions{})
	require.NoError(p.t, err)
	p.await(func() error {
		if state := p.inspect(made.ID).State; state.Running {
			return fmt.Errorf("%s still runs", name)
		}
		return nil
	})
	return made.ID
}

// The agent's container.list and container.logs, on a real engine.
func TestBuiltInCommands(t *testing.T) {
	p := newProject(t)
	t.Setenv("DOCKER_HOST", p.host)
	running := p.deploy("v1")
	ended := p.talker(p.name+"-talker", false)

	list := func(payload string) map[string]agenthost.Container {
		t.Helper()
		result, _, _, err := builtIn(t, "container.list", payload)
		require.NoError(t, err)
		text, err := json.Marshal(result)
		require.NoError(t, err)
		var all agenthost.Containers
		require.NoError(t, json.Unmarshal(text, &all))
		require.Len(t, all.Containers, all.Total)
		byID := map[string]agenthost.Container{}
		for _, c := range all.Containers {
			byID[c.ID] = c
		}
		return byID
	}
	require.NotContains(t, list(""), ended)
	all := list(`{"all":true}`)
	web := all[running.ID]
	require.Equal(t, strings.TrimPrefix(running.Name, "/"), web.Name)
	require.Equal(t, image+":v1", web.Image)
	require.Equal(t, "running", web.State)
	require.Contains(t, web.Status, "Up")
	require.Contains(t, strings.Join(web.Ports, " "), fmt.Sprintf(":%d->8080/tcp", p.port))
	require.Equal(t, p.name, web.Labels["quicflow.project"])
	require.WithinDuration(t, time.Now(), web.CreatedAt, time.Minute)
	gone := all[ended]
	require.Equal(t, p.name+"-talker", gone.Name)
	require.Equal(t, "exited", gone.State)
	require.Contains(t, gone.Status, "Exited (3)")
	require.Contains(t, gone.Command, "busybox sh -c")
	require.Equal(t, "blue", gone.Labels["team"])
	require.Empty(t, gone.Ports)

	result, out, errs, err := builtIn(t, "container.logs", fmt.Sprintf(`{"container":%q}`, gone.Name))
	require.NoError(t, err)
	require.Equal(t, agenthost.ContainerLogs{ID: ended}, result)
	require.Equal(t, "out 1\nout 2\nno end of line", out)
	require.Equal(t, "err 1\n", errs)
	_, out, errs, err = builtIn(t, "container.logs", fmt.Sprintf(`{"container":%q,"tail":1,"timestamps":true}`, ended[:12]))
	require.NoError(t, err)
	require.Empty(t, errs)
	text, line, _ := strings.Cut(out, " ")
	require.Equal(t, "no end of line", line)
	last, err := time.Parse(time.RFC3339Nano, text)
	require.NoError(t, err)
	between := last.Add(-500 * time.Millisecond).Format(time.RFC3339Nano)
	_, out, errs, err = builtIn(t, "container.logs", fmt.Sprintf(`{"container":%q,"since":%q}`, ended, between))
	require.NoError(t, err)
	require.Equal(t, "out 2\nno end of line", out)
	require.Empty(t, errs)
	_, out, errs, err = builtIn(t, "container.logs", fmt.Sprintf(`{"container":%q,"until":%q}`, ended, between))
	require.NoError(t, err)
	require.Equal(t, "out 1\n", out)
	require.Equal(t, "err 1\n", errs)

	terminal := p.talker(p.name+"-terminal", true)
	_, out, errs, err = builtIn(t, "container.logs", fmt.Sprintf(`{"container":%q}`, terminal))
	require.NoError(t, err)
	require.Equal(t, "out 1\r\nerr 1\r\nout 2\r\nno end of line", out, "a terminal has one stream")
	require.Empty(t, errs)

	_, _, _, err = builtIn(t, "container.logs", `{"container":"never-was"}`)
	require.ErrorContains(t, err, "No such container: never-was")
}
