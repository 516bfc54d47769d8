package release

import (
	"path"
	"regexp"
	"strings"
	"time"
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

var envNameForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func validateScriptCommon(field, interpreter, workDir string, env map[string]string, timeout Duration, health *Health, scripts ...string) error {
	if len(interpreter) > maxInterpreterLength || strings.ContainsAny(interpreter, "\x00\n") {
		return Invalid(field+".interpreter", "is too long or has a line break")
	}
	if workDir != "" && (!path.IsAbs(workDir) || strings.ContainsRune(workDir, 0)) {
		return Invalid(field+".work_dir", "%q is not an absolute path", workDir)
	}
	if timeout.Std() > MaxStepTimeout {
		return Invalid(field+".timeout", "%s is longer than the limit of %s", timeout, MaxStepTimeout)
	}
	if err := ValidateEnv(field+".env", env); err != nil {
		return err
	}
	size := 0
	for _, s := range scripts {
		if strings.ContainsRune(s, 0) {
			return Invalid(field, "one of the scripts has a NUL byte")
		}
		size += len(s)
	}
	if size > MaxScriptBytes {
		return Invalid(field, "the scripts take %d bytes together; the limit is %d", size, MaxScriptBytes)
	}
	if health != nil {
		return health.validate(field + ".health")
	}
	return nil
}

// ValidateEnv checks environment variables that a user gave.
func ValidateEnv(field string, env map[string]string) error {
	size := 0
	for name, value := range env {
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
