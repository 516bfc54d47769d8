package api_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quicflow/quicflow/api"
	"github.com/quicflow/quicflow/api/apitest"
	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/release"
	"github.com/quicflow/quicflow/internal/store"
)

// fullProject and fullVersion use about every field that a container has.
const (
	fullProject = `{"name":"shop","type":"container","container":{"image":"registry.example.com/team/shop","registry":{"username":"ci","password":"${TOKEN}"},
		"pull_policy":"always","platform":"linux/amd64","name":"${QUICFLOW_PROJECT}","hostname":"shop","domainname":"example.com",
		"ports":[{"container":80,"host":8080},{"container":443,"host":8443,"host_ip":"0.0.0.0"},{"container":53,"host":5353,"protocol":"udp"}],
		"networks":[{"name":"front","aliases":["shop","www"]},{"name":"back","aliases":["shop"]}],"dns":["10.0.0.1","10.0.0.2"],"dns_search":["example.com"],
		"extra_hosts":{"db":"10.0.0.3","host":"host-gateway"},"volumes":[{"source":"/srv/data","target":"/data"},{"source":"cache","target":"/cache"}],
		"tmpfs":{"/tmp":"size=64m"},"shm_size":"128m","cap_add":["NET_ADMIN"],"cap_drop":["ALL"],"security_opt":["no-new-privileges"],"read_only":true,
		"devices":[{"host":"/dev/fuse"}],"ulimits":{"nofile":{"soft":1024,"hard":2048}},"sysctls":{"net.core.somaxconn":"1024"},"group_add":["video"],
		"restart":{"name":"on-failure","max_retries":3},"init":true,"log":{"driver":"json-file","options":{"max-size":"10m","max-file":"3"}},
		"resources":{"memory":"512m","cpus":1.5,"pids":200},"labels":{"team":"shop","tier":"front"},"env":{%s},"pre_script":"echo pre","post_script":"echo post",
		"health_check":{"test":["curl","-f","http://localhost/"],"interval":"5s","retries":3},"annotations":{"a":"b"}}}`
	fullVersion = `{"version":%q,"status":"active","container":{"image_tag":%q,"entrypoint":["/shop"],"command":["--port","80"],"env":{"VERSION":"${QUICFLOW_VERSION}"},
		"user":"1000:1000","work_dir":"/srv","labels":{"version":"${QUICFLOW_VERSION}"},"resources":{"memory":"1g"},"stop_signal":"SIGTERM","stop_timeout":"20s",
		"update":"auto","settle":"5s","keep_old":2,"timeout":"15m","health":{"http":"http://127.0.0.1:8080/ready"}}}`
)

// BenchmarkPreview previews a full container configuration for 10,000 targets that run 20 different configurations, over HTTP.
func BenchmarkPreview(b *testing.B) {
	const hosts, groups = 10_000, 20
	s := apitest.Start(b)
	b.StopTimer()
	ids := fleet(b, s.Store, hosts)
	post := func(path, body string) []byte {
		r := s.Request("POST", path, strings.NewReader(body))
		res := openB(b, r)
		require.Less(b, res.status, 300, string(res.text))
		return res.text
	}
	env := make([]string, 50)
	for i := range env {
		env[i] = fmt.Sprintf(`"SETTING_%02d":"value %d of ${QUICFLOW_PROJECT}"`, i, i)
	}
	post("/api/release/projects", fmt.Sprintf(fullProject, strings.Join(env, ",")))
	put := s.Request("PUT", "/api/release/projects/shop/variables/TOKEN", strings.NewReader(`{"value":"x","secret":true}`))
	require.Equal(b, 201, openB(b, put).status)
	for _, version := range []string{"1.0", "2.0"} {
		post("/api/release/projects/shop/versions", fmt.Sprintf(fullVersion, version, version))
	}
	for i := range groups {
		some := ids[i*hosts/groups : (i+1)*hosts/groups]
		list, err := json.Marshal(some)
		require.NoError(b, err)
		var task release.Task
		require.NoError(b, json.Unmarshal(post("/api/release/tasks", fmt.Sprintf(
			`{"project":"shop","version":"1.0","targets":{"clients":%s},"override":{"env":{"GROUP":"%d"}}}`, list, i)), &task))
		s.Dispatch(task, some...)
		results := make([]release.StepResult, len(some))
		for j, id := range some {
			results[j] = release.StepResult{StepID: release.StepID(task.ID, release.StepDeploy, id, 0), ClientID: id, State: release.StepSucceeded, FinishedAt: time.Now()}
		}
		_, err = s.Store.RecordResults(b.Context(), results)
		require.NoError(b, err)
		s.Progress(task.ID, release.StatusSucceeded, release.PhaseDone)
	}
	b.StartTimer()
	for b.Loop() {
		text := post("/api/release/preview", `{"project":"shop","version":"2.0","targets":{"selector":"*"},"override":{"env":{"GROUP":"new"}}}`)
		var p api.Preview
		require.NoError(b, json.Unmarshal(text, &p))
		require.Equal(b, hosts, p.Total)
		require.Len(b, p.Groups, groups)
		require.NotEmpty(b, p.Groups[0].Changes)
	}
}

type answer struct {
	status int
	text   []byte
}

func openB(b *testing.B, r *http.Request) answer {
	b.Helper()
	res, err := http.DefaultClient.Do(r)
	require.NoError(b, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(b, err)
	return answer{res.StatusCode, text}
}

func fleet(b *testing.B, s *store.Store, n int) []string {
	b.Helper()
	require.NoError(b, s.CreateJoinToken(b.Context(), store.JoinToken{ID: "f", Hash: "f", Pattern: "*", Uses: n, ExpiresAt: time.Now().Add(time.Hour)}))
	ids := make([]string, n)
	sessions := make([]release.ClientSession, n)
	const workers = 64
	errs := make(chan error, workers)
	for w := range workers {
		go func() {
			for i := w; i < n; i += workers {
				ids[i] = fmt.Sprintf("web-%05d", i)
				sessions[i] = release.ClientSession{ClientID: ids[i], NodeID: "node", JournalID: ids[i], Labels: map[string]string{"env": "prod"}, At: time.Now()}
				if err := s.RedeemJoinToken(b.Context(), auth.Redemption{TokenHash: "f", ClientID: ids[i], PublicKeyHash: ids[i], At: time.Now()}); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range workers {
		require.NoError(b, <-errs)
	}
	for len(sessions) > 0 {
		some := min(len(sessions), 1000)
		_, err := s.ConnectClients(b.Context(), sessions[:some])
		require.NoError(b, err)
		sessions = sessions[some:]
	}
	return ids
}
