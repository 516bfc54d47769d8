package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/internal/release"
)

// object is a JSON object of a request.
type object map[string]any

// call makes a request with the administrator's token and gives the status and the body.
func (s *server) call(method, path, body string) (int, string) {
	s.t.Helper()
	req, err := http.NewRequest(method, s.url(path), strings.NewReader(body))
	require.NoError(s.t, err)
	req.Header.Set("Authorization", "Bearer "+s.token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error() // the server is down
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(answer)
}

// get reads an object; the status is 0 while the server is down.
func (s *server) get(path string, into any) int {
	s.t.Helper()
	code, body := s.call(http.MethodGet, path, "")
	if code == http.StatusOK {
		require.NoError(s.t, json.Unmarshal([]byte(body), into), body)
	}
	return code
}

// post sends an object and decodes the answer, which must be one of success.
func (s *server) post(path string, body, into any) {
	s.t.Helper()
	data, err := json.Marshal(body)
	require.NoError(s.t, err)
	code, answer := s.call(http.MethodPost, path, string(data))
	require.True(s.t, code >= 200 && code < 300, "POST %s %s: %d %s", path, data, code, answer)
	if into != nil {
		require.NoError(s.t, json.Unmarshal([]byte(answer), into), answer)
	}
}

// try sends an object and gives the answer, whatever it is.
func (s *server) try(path string, body any) (int, string) {
	s.t.Helper()
	data, err := json.Marshal(body)
	require.NoError(s.t, err)
	return s.call(http.MethodPost, path, string(data))
}

// tracing is the scripts of a version that leaves its trace on the host and prints lines for about as long as told.
func tracing(lasting time.Duration) object {
	script := func(action string) string {
		return fmt.Sprintf(`echo "%s $QUICFLOW_VERSION" >> "$TRACES/$QUICFLOW_TARGET"
i=0
while [ $i -lt %d ]; do
	echo "$QUICFLOW_TARGET %s $QUICFLOW_VERSION line $i"
	i=$((i + 1))
	sleep 0.1
done
`, action, int(lasting/(100*time.Millisecond)), action)
	}
	return object{"install": script("install"), "update": script("update"), "rollback": script("rollback"), "uninstall": script("uninstall")}
}

// tracedLines is what a tracing version prints on a host.
func tracedLines(clientID, action, version string, lasting time.Duration) []string {
	var want []string
	for i := range int(lasting / (100 * time.Millisecond)) {
		want = append(want, fmt.Sprintf("%s %s %s line %d", clientID, action, version, i))
	}
	return want
}

// project creates a script project whose scripts find the hosts' traces.
func (s *server) project(name string, h *hosts) {
	s.t.Helper()
	s.post("/api/release/projects", object{"name": name, "type": "script",
		"script": object{"env": object{"TRACES": h.dir}}}, nil)
}

// version creates an active version.
func (s *server) version(project, name string, script object) {
	s.t.Helper()
	s.post("/api/release/projects/"+project+"/versions", object{"version": name, "status": "active", "script": script}, nil)
}

// deploy creates a task for every agent.
func (s *server) deploy(project, version string, strategy object) release.Task {
	s.t.Helper()
	return s.deployTo(project, version, object{"selector": "*"}, strategy)
}

// deployTo creates a task.
func (s *server) deployTo(project, version string, targets, strategy object) release.Task {
	s.t.Helper()
	var task release.Task
	s.post("/api/release/tasks", object{"project": project, "version": version, "action": "deploy",
		"targets": targets, "strategy": strategy}, &task)
	return task
}

// installed rolls a first version out to every agent.
func (s *server) installed(project, version string) {
	s.t.Helper()
	task := s.finish(s.deploy(project, version, object{}).ID, 90*time.Second)
	require.Equal(s.t, release.StatusSucceeded, task.Status, task.Reason)
}

// task reads a task; while the server is down it is empty.
func (s *server) task(id string) (task release.Task) {
	s.t.Helper()
	s.get("/api/release/tasks/"+id, &task)
	return task
}

// reach waits until a task is as wanted.
func (s *server) reach(id string, limit time.Duration, what string, wanted func(release.Task) bool) (task release.Task) {
	s.t.Helper()
	eventually(s.t, limit, what, func() (bool, any) {
		task = s.task(id)
		return task.ID != "" && wanted(task), task
	})
	return task
}

// finish waits until a task has ended.
func (s *server) finish(id string, limit time.Duration) release.Task {
	s.t.Helper()
	return s.reach(id, limit, "the task ends", func(t release.Task) bool { return t.Status.Terminal() })
}

// steer promotes, pauses, resumes, aborts or rolls back, which must be accepted.
func (s *server) steer(id, verb string) {
	s.t.Helper()
	s.post("/api/release/tasks/"+id+"/"+verb, object{"reason": "the test says so"}, nil)
}

// targets reads the targets of a task by client id.
func (s *server) targets(id string) map[string]release.Target {
	s.t.Helper()
	var page struct {
		Targets []release.Target `json:"targets"`
	}
	require.Equal(s.t, http.StatusOK, s.get("/api/release/tasks/"+id+"/targets?limit=1000", &page))
	byClient := map[string]release.Target{}
	for _, t := range page.Targets {
		byClient[t.ClientID] = t
	}
	return byClient
}

// inState gives the sorted ids of the targets in a state.
func inState(targets map[string]release.Target, state release.TargetState) (ids []string) {
	for id, t := range targets {
		if t.State == state {
			ids = append(ids, id)
		}
	}
	return ids
}

// installedVersions reads what version of a project each host runs.
func (s *server) installedVersions(project string) map[string]string {
	s.t.Helper()
	var page struct {
		Installations []release.Installation `json:"installations"`
	}
	require.Equal(s.t, http.StatusOK, s.get("/api/release/installations?project="+project, &page))
	versions := map[string]string{}
	for _, i := range page.Installations {
		versions[i.ClientID] = i.Version
	}
	return versions
}

// lines splits text into its lines, without the last line break.
func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// indented is JSON for a person who reads a failed test.
func indented(text string) string {
	var b bytes.Buffer
	if json.Indent(&b, []byte(text), "", "  ") != nil {
		return text
	}
	return b.String()
}
