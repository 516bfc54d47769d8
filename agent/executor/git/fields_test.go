package git_test

import (
	"reflect"
	"testing"

	"github.com/quicflow/quicflow/agent/executor/executortest"
	"github.com/quicflow/quicflow/internal/release"
)

func TestEveryFieldHasATest(t *testing.T) {
	executortest.FieldsAreTested(t, reflect.TypeFor[release.GitSpec](), map[string]string{
		"repository": "TestLife", "auth.username": "TestHTTPS", "auth.password": "TestHTTPS", "auth.ca_cert": "TestHTTPS",
		"auth.ssh_key": "TestSSH", "auth.known_hosts": "TestSSH",
		"ref": "TestRefs", "depth": "TestDepth", "submodules": "TestSubmodules", "lfs": "TestLFS",
		"path": "TestPathOfLabels", "keep_releases": "TestKeepReleases", "shared": "TestShared", "user": "TestUser", "env": "TestScripts",
		"interpreter": "TestInterpreterAndTimeout", "timeout": "TestInterpreterAndTimeout",
		"pre_script": "TestScripts", "post_script": "TestScripts", "uninstall": "TestLife", "health": "TestScripts",
	})
}
