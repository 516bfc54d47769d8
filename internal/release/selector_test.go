package release

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestSelector(t *testing.T) {
	host := &Client{
		ID: "web-1", OS: "linux", Arch: "amd64", AgentVersion: "1.4.2", Status: ClientOnline,
		Labels: map[string]string{"env": "prod", "rack": "", "path": "a/b", "slots": "12", "kernel": "by hand", "facts.x": "no fact"},
		Facts: json.RawMessage(`{"cpus": 8, "memory_mb": 16000, "kernel": "6.1.0", "distribution": "debian", "big": 1e3, "virtual": false, "nothing": null,
			"os": {"distribution": "debian", "version.id": "12"}, "ips": ["10.0.0.7", "fe80::1", 5], "nested": [{"a": 1}]}`),
	}
	for text, want := range map[string]bool{
		"*": true, "env=prod": true, "env==prod": true, "env=p*": true, "env=stage": false, "env!=stage": true, "env!=prod": false,
		"rack": true, "!rack": false, "!maintenance": true, "maintenance": false, "rack=": true, "env=": false,
		"id=web-*,os=linux,env": true, "id=db-*": false, "zone!=eu": true, "env=prod, os=darwin": false,
		"path=*": true, "path=a*b": true, "path=a?b": true, "path=a/b": true, "path=[a]/b": true,

		"env in (stage, prod)": true, "env in(prod)": true, "env in (stage,test)": false, "env notin (stage,test)": true,
		"env notin (prod)": false, "zone in (a)": false, "zone notin (a)": true, "id in (db-*,web-*),os in (linux)": true,
		"id in (a,b),env=prod": false,

		"status=online": true, "status!=online": false, "status in (offline,reconnecting)": false, "status=o*": true,
		"agent_version=1.4.*": true, "agent_version!=1.4.2": false,

		"slots>11": true, "slots>12": false, "slots>=12": true, "slots<12.5": true, "slots<12": false, "slots<=12": true,
		"env>1": false, "none>1": false, "none<1": false, "memory_mb>=4096": true, "memory_mb >= 4096": true, "cpus>8": false, "cpus>4": true,

		"facts.kernel=6.*": true, "fact.kernel=6.*": true, "fact.kernel=5.*": false, "kernel=6.*": false, "kernel=by hand": true,
		"facts.os.distribution=debian": true, "facts.os.version.id=12": true, "facts.os.version.id>=12": true, "facts.os": true, "facts.os=*": false,
		"distribution=debian": true, "!distribution": false, "facts.nothing": false, "!facts.nothing": true, "facts.nothing!=x": true,
		"facts.big=1e3": true, "facts.big=1000": false, "facts.big<=1000": true, "facts.virtual=false": true, "facts.virtual=true": false,
		"facts.ips=10.*": true, "facts.ips!=10.*": false, "facts.ips=192.*": false, "facts.ips": true, "facts.ips=5": true,
		"facts.nested.a": true, "facts.nested.a=1": true, "facts.nested.a!=1": false, "facts.nested.a>1": false, "facts.nested.b": false, "facts.x": false, "facts.cpus in (4,8)": true, "facts.cpus notin (4,8)": false,
	} {
		s, err := ParseSelector(text)
		require.NoError(t, err, text)
		require.Equal(t, want, s.Matches(host), text)
	}
	s, err := ParseSelector("cpus>4")
	require.NoError(t, err)
	for _, facts := range []string{"", "{", "[]", "null", `"x"`} {
		require.False(t, s.Matches(&Client{Facts: json.RawMessage(facts)}), facts)
	}
	require.True(t, Selector{}.Matches(&Client{}))
}

func TestSelectorsThatAreNone(t *testing.T) {
	for text, message := range map[string]string{
		"":                   "is empty",
		",":                  "has an empty term",
		"a=b,,c":             "has an empty term",
		"a=b,":               "has an empty term",
		"=x":                 `"=x" is none of key=value`,
		"==":                 `"==" is none of`,
		"!":                  `"!" is none of`,
		"!!a":                `"!!a" is none of`,
		"!a=b":               `"!a=b" is none of`,
		"a!b":                `"a!b" is none of`,
		"a b":                `"a b" is none of`,
		"a(b":                `"a(b" is none of`,
		"a=[":                `"[" is not a valid glob`,
		"a===b":              `"a===b" has too many equals signs`,
		"a in (=b)":          "too many equals signs",
		"web-*":              `"web-*" is no key; id=web-* picks hosts by their id`,
		"env=prod,web-[1-3]": `id=web-[1-3] picks`,
		"w*=x":               `"w*=x" is none of`,
		"a in (b":            `"a in (b" has no closing parenthesis`,
		"a in (b,c":          `"a in (b,c" has no closing parenthesis`,
		"a in ()":            `"a in ()" has an empty value`,
		"a in (b,)":          "has an empty value",
		"a in (b) c":         `"a in (b) c" goes on behind`,
		"a in b":             `"a in b" is none of`,
		"a in ([)":           "is not a valid glob",
		"a>b":                `"a>b" compares with "b", which is not a number`,
		"a>":                 `which is not a number`,
		"a>=NaN":             `which is not a number`,
		"a<Inf":              `which is not a number`,
		"a=>5":               "", // equal to ">5"
		"status=onlin":       `"status=onlin": a status is online, reconnecting or offline`,
		"status in (up)":     "a status is",
		"facts.":             `"facts." names no fact`,
		"fact.=x":            "names no fact",
	} {
		_, err := ParseSelector(text)
		if message == "" {
			require.NoError(t, err, text)
			continue
		}
		requireInvalid(t, "targets.selector", err)
		require.ErrorContains(t, err, message, text)
	}
	_, err := ParseSelector("a b")
	requireInvalid(t, "selector", ErrorAt("selector", err))
	require.NoError(t, ErrorAt("selector", nil))
}

func TestWhatSelectorsUse(t *testing.T) {
	uses := func(text string) string {
		s, err := ParseSelector(text)
		require.NoError(t, err)
		var used []string
		for _, attribute := range append([]string{"labels", "facts"}, ownKeys...) {
			if s.Uses(attribute) {
				used = append(used, attribute)
			}
		}
		return fmt.Sprint(used, s.Requires())
	}
	require.Equal(t, "[] []", uses("*"))
	require.Equal(t, "[labels] [{env true [prod]}]", uses("env=prod,!maintenance,a!=b,c=d*"))
	require.Equal(t, "[id os] [{os false [linux darwin]}]", uses("id=web-*,os in (linux,darwin)"))
	require.Equal(t, "[labels facts] []", uses("kernel=6"), "a label may stand before it")
	require.Equal(t, "[facts status] [{status false [online]}]", uses("facts.a.b>5,status=online"))
}

// anySelector draws texts that mostly are selectors.
func anySelector(t *rapid.T) string {
	key := rapid.OneOf(rapid.SampledFrom([]string{"id", "os", "env", "facts.a.b", "fact.kernel", "cpus", "status", "in", "notin"}), rapid.StringMatching(`[a-z./ ]{0,5}`))
	value := rapid.OneOf(rapid.SampledFrom([]string{"online", "prod", "web-*", "[a-c]", "", " a b ", "=x", "(", ")", "12"}), rapid.StringMatching(`[a-z*?/ ()!<>=\[\\-]{0,6}`))
	term := rapid.Custom(func(t *rapid.T) string {
		k := key.Draw(t, "key")
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			return k
		case 1:
			return "!" + k
		case 2:
			return k + rapid.SampledFrom([]string{"=", "==", "!=", " = "}).Draw(t, "operator") + value.Draw(t, "value")
		case 3:
			return k + rapid.SampledFrom([]string{"<", "<=", ">", ">= "}).Draw(t, "operator") + fmt.Sprint(rapid.Float64().Draw(t, "number"))
		}
		return k + rapid.SampledFrom([]string{" in ", " notin"}).Draw(t, "operator") + "(" + strings.Join(rapid.SliceOfN(value, 1, 3).Draw(t, "values"), ",") + ")"
	})
	return strings.Join(rapid.SliceOfN(term, 1, 4).Draw(t, "terms"), ",")
}

// sameAfterString fails unless a selector's text is one that reads as the same selector.
func sameAfterString(t interface{ Fatalf(string, ...any) }, s Selector, hosts ...*Client) {
	again, err := ParseSelector(s.String())
	if err != nil {
		t.Fatalf("%q does not parse: %v", s.String(), err)
	}
	if fmt.Sprint(s) != fmt.Sprint(again) || fmt.Sprintf("%#v", s) != fmt.Sprintf("%#v", again) {
		t.Fatalf("%#v became %#v", s, again)
	}
	for _, host := range hosts {
		if s.Matches(host) != again.Matches(host) {
			t.Fatalf("%q and its text differ on %v", s, host)
		}
		// What it says it needs is enough, and what it says it implies is implied.
		part := &Client{Status: ClientOffline}
		for attribute, set := range map[string]func(){
			"id": func() { part.ID = host.ID }, "hostname": func() { part.Hostname = host.Hostname }, "os": func() { part.OS = host.OS },
			"arch": func() { part.Arch = host.Arch }, "agent_version": func() { part.AgentVersion = host.AgentVersion },
			"status": func() { part.Status = host.Status }, "labels": func() { part.Labels = host.Labels }, "facts": func() { part.Facts = host.Facts },
		} {
			if s.Uses(attribute) {
				set()
			}
		}
		if s.Matches(host) != s.Matches(part) {
			t.Fatalf("%q uses more than it says", s)
		}
		for _, r := range s.Requires() {
			value, _ := host.attribute(r.Key)
			if s.Matches(host) && !strings.Contains(","+strings.Join(r.Values, ",")+",", ","+value+",") {
				t.Fatalf("%q does not imply %v", s, r)
			}
		}
	}
}

func someHosts() []*Client {
	return []*Client{
		{ID: "web-1", OS: "linux", Status: ClientOnline, Labels: map[string]string{"env": "prod", "in": "a", "notin": "", "cpus": "12"}},
		{ID: "a", OS: "a", Hostname: "prod", AgentVersion: "12", Status: ClientOffline, Facts: json.RawMessage(`{"cpus": 12, "kernel": "prod", "a": {"b": ["online", 12]}}`)},
	}
}

func TestSelectorsReadAsWritten(t *testing.T) {
	read := 0
	rapid.Check(t, func(t *rapid.T) {
		s, err := ParseSelector(anySelector(t))
		if err != nil {
			if CodeOf(err) != CodeInvalid {
				t.Fatalf("%v", err)
			}
			return
		}
		read++
		sameAfterString(t, s, someHosts()...)
	})
	require.Positive(t, read)
}

func FuzzSelector(f *testing.F) {
	hosts := someHosts()
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := ParseSelector(text); err == nil {
			sameAfterString(t, s, hosts...)
		}
	})
}
