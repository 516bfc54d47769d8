package host

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/quicflow/quicflow/agent/command"
	"github.com/quicflow/quicflow/internal/release"
	quicflowv1 "github.com/quicflow/quicflow/proto/quicflow/v1"
)

const (
	engineSocket = "/var/run/docker.sock"
	// The limits of container.logs.
	defaultLines = 100
	maxLines     = 100_000
	maxAnswer    = 16 << 20 // of the engine, in bytes, other than logs
)

// engine speaks the Docker Engine API over its unix socket (https://docs.docker.com/reference/api/engine/).
type engine struct {
	socket string
	client *http.Client
}

// newEngine takes the socket's path; empty is $DOCKER_HOST, or else Docker's own.
func newEngine(socket string) *engine {
	if socket == "" {
		socket = engineSocket
		if path, ok := strings.CutPrefix(os.Getenv("DOCKER_HOST"), "unix://"); ok {
			socket = path
		}
	}
	return &engine{socket, &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}
}

// get asks for a path; whoever calls closes the body.
func (e *engine) get(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine"+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	response, err := e.client.Do(request)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		var outer *url.Error
		if errors.As(err, &outer) {
			err = outer.Err
		}
		return nil, fmt.Errorf("%w (%s): %w", errNoEngine, e.socket, err)
	}
	if response.StatusCode/100 == 2 {
		return response.Body, nil
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	var problem struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(text, &problem) != nil || problem.Message == "" {
		problem.Message = strings.TrimSpace(string(text))
	}
	return nil, fmt.Errorf("the container engine answered %s: %s", response.Status, problem.Message)
}

func (e *engine) read(ctx context.Context, path string, query url.Values, into any) error {
	body, err := e.get(ctx, path, query)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, maxAnswer)).Decode(into); err != nil {
		return fmt.Errorf("read the container engine's answer: %w", err)
	}
	return nil
}

// Containers is the result of container.list.
type Containers struct {
	Total      int         `json:"total"`
	Containers []Container `json:"containers"`
}

// Container is one of the host's engine.
type Container struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	Image     string            `json:"image"`
	Command   string            `json:"command"`
	State     string            `json:"state"`  // created, running, paused, restarting, exited, dead, ...
	Status    string            `json:"status"` // for people: Up 3 hours (healthy)
	CreatedAt time.Time         `json:"created_at"`
	Ports     []string          `json:"ports,omitempty"` // 0.0.0.0:8080->80/tcp, or 80/tcp
	Labels    map[string]string `json:"labels,omitempty"`
}

func (e *engine) list(ctx context.Context, call *command.Call) (any, error) {
	want := struct {
		All bool `json:"all"` // those that do not run, too
	}{}
	if err := call.Decode(&want); err != nil {
		return nil, err
	}
	var found []struct {
		ID, Image, Command, State, Status string

		Names   []string
		Created int64
		Labels  map[string]string
		Ports   []struct {
			IP, Type                string
			PrivatePort, PublicPort uint16
		}
	}
	if err := e.read(ctx, "/containers/json", url.Values{"all": {strconv.FormatBool(want.All)}}, &found); err != nil {
		return nil, err
	}
	list := Containers{Total: len(found), Containers: make([]Container, 0, len(found))}
	for _, f := range found {
		c := Container{
			ID: f.ID, Image: f.Image, Command: f.Command, State: f.State, Status: f.Status, Labels: f.Labels,
			CreatedAt: time.Unix(f.Created, 0).UTC(),
		}
		if len(f.Names) > 0 {
			c.Name = strings.TrimPrefix(f.Names[0], "/")
		}
		for _, p := range f.Ports {
			port := fmt.Sprintf("%d/%s", p.PrivatePort, p.Type)
			if p.PublicPort > 0 {
				port = net.JoinHostPort(p.IP, strconv.Itoa(int(p.PublicPort))) + "->" + port
			}
			c.Ports = append(c.Ports, port)
		}
		list.Containers = append(list.Containers, c)
	}
	return list, nil
}

// ContainerLogs is the result of container.logs; the logs themselves are the command's output.
type ContainerLogs struct {
	ID string `json:"id"`
}

func (e *engine) logs(ctx context.Context, call *command.Call) (any, error) {
	want := struct {
		Container  string `json:"container"`  // name or id
		Tail       int    `json:"tail"`       // lines, from the end
		Since      string `json:"since"`      // a time, or a duration such as 10m
		Until      string `json:"until"`      // a time, or a duration
		Timestamps bool   `json:"timestamps"` // before each line
	}{Tail: defaultLines}
	if err := call.Decode(&want); err != nil {
		return nil, err
	}
	if want.Container == "" || strings.ContainsAny(want.Container, "/?#\x00") {
		return nil, release.Invalid("payload.container", "%q is no name or id of a container", want.Container)
	}
	if want.Tail < 1 || want.Tail > maxLines {
		return nil, release.Invalid("payload.tail", "%d is not between 1 and %d", want.Tail, maxLines)
	}
	query := url.Values{
		"stdout": {"true"}, "stderr": {"true"}, "tail": {strconv.Itoa(want.Tail)}, "timestamps": {strconv.FormatBool(want.Timestamps)},
	}
	for name, text := range map[string]string{"since": want.Since, "until": want.Until} {
		at, err := moment(text, time.Now())
		if err != nil {
			return nil, release.Invalid("payload."+name, "%q is neither a time such as 2026-01-02T15:04:05Z nor a duration such as 10m", text)
		}
		if !at.IsZero() {
			query.Set(name, fmt.Sprintf("%d.%09d", at.Unix(), at.Nanosecond()))
		}
	}
	var container struct {
		ID     string `json:"Id"`
		Config struct{ Tty bool }
	}
	path := "/containers/" + url.PathEscape(want.Container)
	if err := e.read(ctx, path+"/json", nil, &container); err != nil {
		return nil, err
	}
	body, err := e.get(ctx, path+"/logs", query)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	stdout, err := call.Output(quicflowv1.Stream_STREAM_STDOUT)
	if err != nil {
		return nil, err
	}
	stderr, err := call.Output(quicflowv1.Stream_STREAM_STDERR)
	if err != nil {
		return nil, err
	}
	if container.Config.Tty {
		_, err = io.Copy(stdout, body)
	} else {
		err = demultiplex(body, stdout, stderr)
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return ContainerLogs{container.ID}, err
}

// moment reads a time, or how long ago something was; empty is the zero time.
func moment(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	return time.Parse(time.RFC3339Nano, text)
}

// demultiplex takes apart the stream of a container without a terminal: frames of a header of 8 bytes (stream, 0, 0, 0,
// length) and data.
func demultiplex(from io.Reader, stdout, stderr io.Writer) error {
	var header [8]byte
	for {
		if _, err := io.ReadFull(from, header[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read the container's log: %w", err)
		}
		to := stdout
		if header[0] == 2 {
			to = stderr
		}
		if _, err := io.CopyN(to, from, int64(binary.BigEndian.Uint32(header[4:]))); err != nil {
			return fmt.Errorf("read the container's log: %w", err)
		}
	}
}
