package rig

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// serverGoodbye is how long a server may take to end by itself.
const serverGoodbye = 30 * time.Second

// Server is a quic-server process.
type Server struct {
	API, QUIC string // URL; host:port
	DataDir   string

	command *exec.Cmd
	ended   chan struct{}
	log     string
	token   string // the administrator's
}

// StartServer starts a server on a data directory, at addresses of the loopback interface, with variables of its configuration
// beside, and waits until it is ready. Its log is the file server.log beside the data directory. The end of ctx does not end it.
func StartServer(ctx context.Context, binary, dataDir string, env ...string) (*Server, error) {
	udp, err := FreePort("udp")
	if err != nil {
		return nil, err
	}
	tcp, err := FreePort("tcp")
	if err != nil {
		return nil, err
	}
	s := &Server{API: "http://" + tcp, QUIC: udp, DataDir: dataDir, ended: make(chan struct{}), log: filepath.Join(filepath.Dir(dataDir), "server.log")}
	log, err := os.Create(s.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	configuration := filepath.Join(filepath.Dir(dataDir), "server.yaml")
	if err := os.WriteFile(configuration, []byte("{}\n"), 0o600); err != nil { // else it would read the one of the working directory
		return nil, err
	}
	s.command = exec.Command(binary, "--config", configuration, "--data-dir", dataDir)
	s.command.Env = append(os.Environ(), "QUIC_SERVER_ADDR="+udp, "QUIC_SERVER_API_ADDR="+tcp, "QUIC_METRICS_ADDR=127.0.0.1:0")
	s.command.Env = append(s.command.Env, env...)
	s.command.Stdout, s.command.Stderr = log, log
	s.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us, who end it
	if err := s.command.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the process, which Stop waits for
		defer close(s.ended)
		_ = s.command.Wait()
	}()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		text, err := os.ReadFile(filepath.Join(dataDir, "admin.token"))
		if err == nil {
			s.token = strings.TrimSpace(string(text))
			if err = s.Get(ctx, "/ready", nil); err == nil {
				return s, nil
			}
		}
		select {
		case <-time.After(50 * time.Millisecond):
			continue
		case <-s.ended:
		case <-ctx.Done():
		}
		s.Stop()
		return nil, fmt.Errorf("the server did not become ready: %w\n%s", err, s.tail())
	}
}

// FreePort gives a loopback address that no one listens on.
func FreePort(network string) (string, error) {
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		defer c.Close()
		return c.LocalAddr().String(), nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// Stop ends the server, by force where asking is not enough.
func (s *Server) Stop() {
	_ = s.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(serverGoodbye):
		_ = s.command.Process.Kill()
		<-s.ended
	}
}

// Usage is what it has used so far.
func (s *Server) Usage() (Usage, error) { return UsageOf(s.command.Process.Pid) }

// Complaints are the last warnings and errors of its log.
func (s *Server) Complaints() string {
	const most = 10
	text, _ := os.ReadFile(s.log)
	var lines []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "level=ERROR") || strings.Contains(line, "level=WARN") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-most):], "")
}

func (s *Server) tail() []byte {
	const most = 4 << 10
	text, _ := os.ReadFile(s.log)
	return bytes.TrimSpace(text[max(0, len(text)-most):])
}

// HistoryLength asks Temporal, through the server, how many events a workflow has.
func (s *Server) HistoryLength(ctx context.Context, workflowID string) (int, error) {
	var described struct {
		Info struct {
			HistoryLength string `json:"historyLength"`
		} `json:"workflowExecutionInfo"`
	}
	if err := s.Get(ctx, "/temporal/api/v1/namespaces/default/workflows/"+url.PathEscape(workflowID), &described); err != nil {
		return 0, err
	}
	return strconv.Atoi(described.Info.HistoryLength)
}

// Event is one of a workflow's history.
type Event struct {
	At   time.Time `json:"eventTime"`
	Type string    `json:"eventType"`

	Scheduled struct {
		ActivityType struct {
			Name string `json:"name"`
		} `json:"activityType"`
	} `json:"activityTaskScheduledEventAttributes"`
}

// What says in words what happened.
func (e Event) What() string {
	return strings.TrimSpace(strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(e.Type, "EVENT_TYPE_"), "_", " ")) + " " + e.Scheduled.ActivityType.Name)
}

// History gives the first thousand events of a workflow.
func (s *Server) History(ctx context.Context, workflowID string) ([]Event, error) {
	var answer struct {
		History struct {
			Events []Event `json:"events"`
		} `json:"history"`
	}
	err := s.Get(ctx, "/temporal/api/v1/namespaces/default/workflows/"+url.PathEscape(workflowID)+"/history?maximumPageSize=1000", &answer)
	return answer.History.Events, err
}

// Get asks the API. A nil answer is not read.
func (s *Server) Get(ctx context.Context, path string, answer any) error {
	return s.do(ctx, http.MethodGet, path, "", answer)
}

// Post sends JSON to the API.
func (s *Server) Post(ctx context.Context, path, body string, answer any) error {
	return s.do(ctx, http.MethodPost, path, body, answer)
}

// Lines gives each line of an event stream of the API, until it ends or the function returns an error.
func (s *Server) Lines(ctx context.Context, path string, line func(text []byte) error) error {
	response, err := s.send(ctx, http.MethodGet, path, "", "text/event-stream")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(make([]byte, 1<<20), 16<<20)
	for lines.Scan() {
		if err := line(lines.Bytes()); err != nil {
			return err
		}
	}
	return lines.Err()
}

func (s *Server) do(ctx context.Context, method, path, body string, answer any) error {
	response, err := s.send(ctx, method, path, body, "application/json")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if answer == nil {
		_, err = io.Copy(io.Discard, response.Body) // so that the connection can be used again
		return err
	}
	return json.NewDecoder(response.Body).Decode(answer)
}

// send gives an answer that is none of an error; its body is to be closed.
func (s *Server) send(ctx context.Context, method, path, body, accept string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, s.API+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+s.token)
	request.Header.Set("Accept", accept)
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 300 {
		defer response.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(response.Body, 4<<10))
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, response.Status, text)
	}
	return response, nil
}
