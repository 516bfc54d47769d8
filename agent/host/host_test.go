package host

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/quicflow/quicflow/agent/command"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// call carries out a command; its output is in the buffers.
type call struct {
	stdout, stderr bytes.Buffer
}

func (c *call) run(t *testing.T, f command.Func, payload string) (any, error) {
	t.Helper()
	return f(t.Context(), &command.Call{Payload: []byte(payload), Output: func(s quicflowv1.Stream) (io.Writer, error) {
		if s == quicflowv1.Stream_STREAM_STDERR {
			return &c.stderr, nil
		}
		return &c.stdout, nil
	}})
}

// result carries out a command and gives its result as it is sent.
func result[T any](t *testing.T, kind, payload string) (v T) {
	t.Helper()
	value, err := new(call).run(t, Commands()[kind].Run, payload)
	require.NoError(t, err)
	text, err := json.Marshal(value)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &v))
	return v
}

func TestSystemInfo(t *testing.T) {
	s := result[System](t, "system.info", "")
	name, err := os.Hostname()
	require.NoError(t, err)
	require.Equal(t, name, s.Hostname)
	require.Equal(t, runtime.GOOS, s.OS)
	require.Positive(t, s.CPUs)
	require.Greater(t, s.Memory.Total, s.Memory.Available)
	require.Positive(t, s.Memory.Available)
	require.NotEmpty(t, s.Kernel)
	require.NotEmpty(t, s.Disks)
	for _, d := range s.Disks {
		require.Positive(t, d.Total, d.Mountpoint)
	}
	require.WithinDuration(t, time.Now().Add(-time.Duration(s.UptimeSeconds)*time.Second), s.BootedAt, time.Minute)
}

func TestHardware(t *testing.T) {
	h := result[Hardware](t, "system.collect_info", "")
	require.Positive(t, h.CPU.Threads)
	require.Positive(t, h.Memory.Total)
	require.NotEmpty(t, h.Interfaces)
	var lo bool
	for _, i := range h.Interfaces {
		lo = lo || i.Name == "lo" && i.MTU > 0
	}
	require.True(t, lo || runtime.GOOS != "linux", "%v", h.Interfaces)
}

func TestBlockDevices(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"sda/size": "1000\n", "sda/queue/rotational": "1\n", "sda/device/model": "Spinning Rust  \n", "sda/ro": "0\n", "sda/removable": "1\n",
		"loop0/size": "8\n", "nvme0n1/size": "3\n", "nvme0n1/device/serial": "S1\n",
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	require.Equal(t, []BlockDevice{
		{Name: "nvme0n1", Size: 1536, Serial: "S1"},
		{Name: "sda", Size: 512_000, Model: "Spinning Rust", Rotational: true, Removable: true},
	}, readBlockDevices(dir))
	require.Empty(t, readBlockDevices(filepath.Join(dir, "none")))
}

// smbios gives a structure of type 17 with these fields and strings.
func smbios(size uint16, extended uint32, kind byte, texts ...string) []byte {
	fields := make([]byte, 0x28)
	fields[0], fields[1] = 17, byte(len(fields))
	binary.LittleEndian.PutUint16(fields[0x0c:], size)
	fields[0x10], fields[0x12] = 1, kind
	binary.LittleEndian.PutUint16(fields[0x15:], 3200)
	fields[0x17], fields[0x18], fields[0x1a] = 2, 3, 4
	binary.LittleEndian.PutUint32(fields[0x1c:], extended)
	return append(append(fields, strings.Join(texts, "\x00")...), 0, 0)
}

func TestMemoryModules(t *testing.T) {
	table := append([]byte{0, 4, 1, 0, 'B', 'I', 'O', 'S', 0, 0}, smbios(8192, 0, 0x1a, "DIMM 0", "Acme", "S1", "P1")...)
	table = append(table, smbios(0, 0, 0x1a, "DIMM 1", "-", "-", "-")...)
	table = append(table, smbios(0x7fff, 65536, 0x22, "DIMM 2", "Acme", "S2", "P2")...)
	table = append(table, 127, 4, 2, 0, 0, 0)
	want := []MemoryModule{
		{"DIMM 0", 8 << 30, "DDR4", 3200, "Acme", "S1", "P1"},
		{"DIMM 2", 64 << 30, "DDR5", 3200, "Acme", "S2", "P2"},
	}
	require.Equal(t, want, memoryModules(table))
	for cut := range table {
		require.LessOrEqual(t, len(memoryModules(table[:cut])), 2)
	}
}

func FuzzMemoryModules(f *testing.F) {
	f.Add(smbios(8192, 0, 0x1a, "a", "b", "c", "d"))
	f.Fuzz(func(_ *testing.T, table []byte) { memoryModules(table) })
}

func TestProcesses(t *testing.T) {
	all := result[Processes](t, "process.list", `{"sort":"pid","limit":10000}`)
	require.Len(t, all.Processes, all.Total)
	found := false
	for i, p := range all.Processes {
		if int(p.PID) == os.Getpid() {
			found = true
			require.EqualValues(t, os.Getppid(), p.PPID)
			require.Contains(t, p.Command, filepath.Base(os.Args[0]))
			require.Positive(t, p.RSS)
			require.WithinDuration(t, time.Now(), p.StartedAt, time.Hour)
		}
		if i > 0 {
			require.Less(t, all.Processes[i-1].PID, p.PID)
		}
	}
	require.True(t, found)
	some := result[Processes](t, "process.list", fmt.Sprintf(`{"name":%q,"limit":1,"sort":"memory"}`, filepath.Base(os.Args[0])))
	require.Len(t, some.Processes, 1)
	require.Zero(t, result[Processes](t, "process.list", `{"user":"no-such-user"}`).Total)
}

func TestPayloadsThatAreWrong(t *testing.T) {
	for _, c := range [][3]string{
		{"system.info", `{"a":1}`, "payload.a: this command has no such field"},
		{"system.collect_info", `{"a":1}`, "payload.a: this command has no such field"},
		{"process.list", `{"sort":"age"}`, `payload.sort: "age" is none of cpu, memory, pid`},
		{"process.list", `{"limit":0}`, "payload.limit: 0 is not between 1 and 10000"},
		{"container.list", `{"all":"yes"}`, "payload.all: it is a string, not true or false"},
		{"container.logs", `{}`, `payload.container: "" is no name or id of a container`},
		{"container.logs", `{"container":"../x"}`, `payload.container: "../x" is no name or id of a container`},
		{"container.logs", `{"container":"x","tail":-1}`, "payload.tail: -1 is not between 1 and 100000"},
		{"container.logs", `{"container":"x","since":"soon"}`, `payload.since: "soon" is neither a time such as 2026-01-02T15:04:05Z nor a duration such as 10m`},
	} {
		_, err := new(call).run(t, Commands()[c[0]].Run, c[1])
		require.ErrorIs(t, err, release.ErrInvalid)
		require.EqualError(t, err, c[2])
	}
}

// serveEngine answers as a container engine does, on a unix socket.
func serveEngine(t *testing.T, handler http.HandlerFunc) *engine {
	t.Helper()
	path := filepath.Join(t.TempDir(), "engine.sock")
	listener, err := net.Listen("unix", path)
	require.NoError(t, err)
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return newEngine(path)
}

func frame(stream byte, text string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{stream, 0, 0, 0}, uint32(len(text))), text...)
}

func TestContainers(t *testing.T) {
	e := serveEngine(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.String() {
		case "/containers/json?all=true":
			fmt.Fprint(w, `[{"Id":"abc","Names":["/web"],"Image":"nginx:1","Command":"nginx","Created":1700000000,"State":"running",
				"Status":"Up 3 hours","Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"PrivatePort":443,"Type":"tcp"}],
				"Labels":{"a":"b"},"Mounts":[]}]`)
		case "/containers/web/json?", "/containers/tty/json?":
			fmt.Fprintf(w, `{"Id":"abc","Config":{"Tty":%v}}`, strings.Contains(r.URL.Path, "tty"))
		case "/containers/web/logs?since=1700000000.000000000&stderr=true&stdout=true&tail=100&timestamps=false":
			_, _ = w.Write(bytes.Join([][]byte{frame(1, "one\n"), frame(2, "oops\n"), frame(1, "two\n")}, nil))
		case "/containers/tty/logs?stderr=true&stdout=true&tail=5&timestamps=true":
			fmt.Fprint(w, "raw\r\n")
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprintf(w, `{"message":"No such container: %s"}`, r.URL)
		}
	})
	value, err := new(call).run(t, e.list, `{"all":true}`)
	require.NoError(t, err)
	require.Equal(t, Containers{1, []Container{{
		ID: "abc", Name: "web", Image: "nginx:1", Command: "nginx", State: "running", Status: "Up 3 hours",
		CreatedAt: time.Unix(1700000000, 0).UTC(), Ports: []string{"0.0.0.0:8080->80/tcp", "443/tcp"}, Labels: map[string]string{"a": "b"},
	}}}, value)

	var c call
	value, err = c.run(t, e.logs, `{"container":"web","since":"2023-11-14T22:13:20Z"}`)
	require.NoError(t, err)
	require.Equal(t, ContainerLogs{"abc"}, value)
	require.Equal(t, "one\ntwo\n", c.stdout.String())
	require.Equal(t, "oops\n", c.stderr.String())

	c = call{}
	_, err = c.run(t, e.logs, `{"container":"tty","tail":5,"timestamps":true}`)
	require.NoError(t, err)
	require.Equal(t, "raw\r\n", c.stdout.String())

	_, err = new(call).run(t, e.logs, `{"container":"none"}`)
	require.EqualError(t, err, "the container engine answered 404 Not Found: No such container: /containers/none/json?")
}

func TestNoEngine(t *testing.T) {
	e := newEngine(filepath.Join(t.TempDir(), "none.sock"))
	_, err := new(call).run(t, e.list, "")
	require.ErrorIs(t, err, errNoEngine)
	require.ErrorContains(t, err, "this host has no container engine that the agent can reach (")

	hang := serveEngine(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithCancelCause(t.Context())
	late := errors.New("late")
	time.AfterFunc(10*time.Millisecond, func() { cancel(late) })
	_, err = hang.list(ctx, &command.Call{})
	require.ErrorIs(t, err, late)
}

func TestFacts(t *testing.T) {
	f := Facts(t.Context())
	require.NotEmpty(t, f.Hostname)
	require.NotEmpty(t, f.Kernel)
	require.Positive(t, f.CPUs)
	require.Positive(t, f.MemoryMB)
	require.NotEmpty(t, f.Disks)
	require.Equal(t, f, Facts(t.Context()), "they do not change by themselves")
}
