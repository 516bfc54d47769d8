package release

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/quicflow/quicflow/internal/lazyregexp"
)

// Limits of a script step. They keep a step request well below the wire's frame limit.
const (
	MaxScriptBytes       = 256 << 10 // all scripts of a version together
	MaxEnvBytes          = 64 << 10  // names and values together
	MaxStepTimeout       = 24 * time.Hour
	DefaultStepTimeout   = 10 * time.Minute
	DefaultInterpreter   = "/bin/sh"
	DefaultKeepReleases  = 3
	reservedEnvPrefix    = "QUICFLOW_"
	maxInterpreterLength = 1024
)

// Defaults of container and Kubernetes steps.
const (
	DefaultSettle       = 2 * time.Second
	DefaultStopTimeout  = 10 * time.Second
	DefaultKubeDeadline = 5 * time.Minute
)

// MaxManifestBytes is the most that a Kubernetes manifest, or a patch, may have. It keeps a step request below the wire's frame limit.
const MaxManifestBytes = 512 << 10

var envNameForm = lazyregexp.New(`^[A-Za-z_][A-Za-z0-9_]*$`)

// ValidateEnv checks environment variables that a user gave.
func ValidateEnv(field string, env map[string]string) error {
	size := 0
	for _, name := range slices.Sorted(maps.Keys(env)) {
		value := env[name]
		if !envNameForm.MatchString(name) {
			return Invalid(field, "%q is not a name for an environment variable", name)
		}
		if strings.HasPrefix(name, reservedEnvPrefix) {
			return Invalid(field+"."+name, "names beginning with %s are QuicFlow's own", reservedEnvPrefix)
		}
		if strings.ContainsRune(value, 0) {
			return Invalid(field+"."+name, "has a NUL byte")
		}
		size += len(name) + len(value) + 2
	}
	if size > MaxEnvBytes {
		return Invalid(field, "takes %d bytes; the limit is %d", size, MaxEnvBytes)
	}
	return nil
}
