package release

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quicflow/quicflow/internal/lazyregexp"
)

// layerMerged is a configuration whose layers are merged: what any of them had to set must be there.
const layerMerged Layer = "merged"

// MaxConfigBytes bounds a configuration as JSON, a single layer or merged: it has to fit into one request to an agent.
const MaxConfigBytes = 900 << 10

// maxPeriod bounds the times of health checks and the like.
const maxPeriod = time.Hour

// checker looks at the fields of one configuration. The first mistake is kept; paths are within the type's part.
//
// A text that holds ${ is not held to a form: what it stands for is known once it is expanded, and then looked at again.
type checker struct {
	prefix string // "script."
	err    *Error
}

func (c *checker) fail(at, format string, args ...any) {
	if c.err == nil {
		c.err = Invalid(c.prefix+at, format, args...)
	}
}

// whole reports what is wrong with the part as a whole.
func (c *checker) whole(format string, args ...any) {
	if c.err == nil {
		c.err = Invalid(strings.TrimSuffix(c.prefix, "."), format, args...)
	}
}

// take keeps an error of a check that names its field itself.
func (c *checker) take(err error) {
	if known, ok := err.(*Error); ok && c.err == nil { //nolint:errorlint // they come from this package, as they are
		c.err = known
	}
}

func (c *checker) result() error {
	if c.err == nil {
		return nil
	}
	return c.err
}

func hasReference(text string) bool { return strings.Contains(text, "${") }

// form wants an optional text to match.
func (c *checker) form(at, value string, form *lazyregexp.Regexp, want string) {
	if value != "" && !hasReference(value) && !form.MatchString(value) {
		c.fail(at, "%s is not %s", quote(value), want)
	}
}

// forms is form for each of a list, none of which may be empty.
func (c *checker) forms(at string, values []string, form *lazyregexp.Regexp, want string) {
	for i, value := range values {
		field := fmt.Sprintf("%s[%d]", at, i)
		if value == "" {
			c.fail(field, "is empty; want %s", want)
		}
		c.form(field, value, form, want)
	}
}

func (c *checker) oneOf(at, value string, values ...string) {
	if value != "" && !slices.Contains(values, value) {
		c.fail(at, "%s is none of %s", quote(value), strings.Join(values, ", "))
	}
}

func (c *checker) between(at string, value, least, most int64) {
	if value < least || value > most {
		c.fail(at, "%d is not between %d and %d", value, least, most)
	}
}

func (c *checker) atMost(at string, value Duration, most time.Duration) {
	if value.Std() > most {
		c.fail(at, "%s is longer than the limit of %s", value, most)
	}
}

// absolute wants an optional path to be absolute and clean.
func (c *checker) absolute(at, value string) {
	switch {
	case value == "" || strings.HasPrefix(value, "${"):
	case !path.IsAbs(value):
		c.fail(at, "%s is not an absolute path", quote(value))
	case hasReference(value):
	case path.Clean(value) != value:
		c.fail(at, "%s is not a clean path; write %s", quote(value), path.Clean(value))
	}
}

// relative wants a path that stays below where it begins.
func (c *checker) relative(at, value string) {
	switch {
	case hasReference(value):
	case value == "" || path.IsAbs(value) || path.Clean(value) != value || value == "." || value == ".." || strings.HasPrefix(value, "../"):
		c.fail(at, "%s is not a clean relative path that stays below its directory", quote(value))
	}
}

func (c *checker) address(at, value string) {
	if _, err := netip.ParseAddr(value); value != "" && !hasReference(value) && err != nil {
		c.fail(at, "%s is not an IP address", quote(value))
	}
}

func (c *checker) webURL(at, value string) {
	if value == "" || hasReference(value) {
		return
	}
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		c.fail(at, "%s is not an http or https URL", quote(value))
	case u.User != nil:
		c.fail(at, "must not hold a user or password")
	}
}

// keys calls check for each key of a map, in their order.
func keys[V any](m map[string]V, check func(key string, value V)) {
	for _, key := range slices.Sorted(maps.Keys(m)) {
		check(key, m[key])
	}
}

// quote shows a value in a message, cut to a length that fits into a line.
func quote(value string) string {
	const most = 80
	if len(value) > most {
		value = strings.ToValidUTF8(value[:most], "") + "…"
	}
	return strconv.Quote(value)
}

// distinct tells of the first value that is there twice.
func (c *checker) distinct(n int, of func(i int) (at, key string)) {
	seen := make(map[string]bool, n)
	for i := range n {
		at, key := of(i)
		if key != "" && seen[key] {
			c.fail(at, "%s is there twice", quote(key))
		}
		seen[key] = true
	}
}

// texts finds what no text may have: a NUL byte, which neither programs nor databases take.
func (c *checker) texts(at string, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		if strings.ContainsRune(v.String(), 0) {
			c.fail(at, "has a NUL byte")
		}
	case reflect.Pointer:
		if !v.IsNil() {
			c.texts(at, v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			c.texts(strings.TrimPrefix(at+"."+name, "."), v.Field(i))
		}
	case reflect.Slice:
		for i := range v.Len() {
			c.texts(fmt.Sprintf("%s[%d]", at, i), v.Index(i))
		}
	case reflect.Map:
		for _, key := range slices.SortedFunc(slices.Values(v.MapKeys()), func(a, b reflect.Value) int { return cmp.Compare(a.String(), b.String()) }) {
			if strings.ContainsRune(key.String(), 0) {
				c.fail(at, "has a name with a NUL byte")
			}
			c.texts(at+"."+key.String(), v.MapIndex(key))
		}
	}
}

// common checks what every type has.
func (c *checker) common(env map[string]string, timeout Duration, interpreter string, health *Health, scripts ...string) {
	if len(interpreter) > maxInterpreterLength || strings.ContainsAny(interpreter, "\n\r") {
		c.fail("interpreter", "is too long or has a line break")
	}
	c.atMost("timeout", timeout, MaxStepTimeout)
	c.take(ValidateEnv(c.prefix+"env", env))
	size := 0
	for _, s := range scripts {
		size += len(s)
	}
	if size > MaxScriptBytes {
		c.whole("the scripts take %d bytes together; the limit is %d", size, MaxScriptBytes)
	}
	if health != nil {
		c.take(health.validate(c.prefix + "health"))
	}
}

// Forms that more than one type has.
var (
	userForm       = lazyregexp.New(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}\$?(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,62})?$`)
	hostForm       = lazyregexp.New(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$`)
	capabilityForm = lazyregexp.New(`^(?i:(CAP_)?[A-Z][A-Z0-9_]{1,63})$`)
	imageForm      = lazyregexp.New(`^(([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?/)?` +
		`[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagForm      = lazyregexp.New(`^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$`)
	registryForm = lazyregexp.New(`^(https?://)?[A-Za-z0-9\[][A-Za-z0-9.:\[\]-]*(/[A-Za-z0-9._/-]*)?$`)
	tagBehind    = lazyregexp.New(`:[^/]*$`)
)

const maxImageName = 255

func (c *checker) image(image, tag string, registry *RegistryAuth) {
	switch {
	case hasReference(image):
	case strings.Contains(image, "@"):
		c.fail("image", "%s has a digest; that is the image_tag", quote(image))
	case tagBehind.MatchString(image):
		c.fail("image", "%s has a tag; that is the image_tag", quote(image))
	case len(image) > maxImageName:
		c.fail("image", "is longer than %d characters", maxImageName)
	default:
		c.form("image", image, imageForm, "the name of an image's repository, such as registry.example.com/team/app")
	}
	c.form("image_tag", tag, tagForm, "a tag or a digest (sha256:…)")
	if r := registry; r != nil {
		c.form("registry.server", r.Server, registryForm, "a registry, such as registry.example.com:5000")
		if (r.Username == "") != (r.Password == "") {
			c.fail("registry", "wants both a username and a password")
		}
		if strings.ContainsAny(r.Username, "\n\r") {
			c.fail("registry.username", "has a line break")
		}
	}
}
