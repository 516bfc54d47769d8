package release

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What expands without an error has no reference left, and stays what it is when it is expanded again.
func FuzzExpandText(f *testing.F) {
	for _, seed := range []string{"", "${A}", "$${A}", "${A}{X}", "${B}${A}", "$", "$$${A}", "${", "${A", "${a b}", "x${LATER}y", "${D}${LATER}", "${D}$${", "${D}{A}"} {
		f.Add(seed, "value")
	}
	f.Add("${A}{B}", "$")
	f.Add("${A}${B}", "{B}$")
	f.Fuzz(func(t *testing.T, text, value string) {
		lookup := func(stage int) Lookup {
			return func(name string) (Value, bool) {
				switch name {
				case "A":
					return Value{Text: value}, true
				case "B":
					return Value{Text: "{A}"}, true
				case "D":
					return Value{Text: "$"}, true
				case "LATER":
					return Value{Text: "${A}" + value, Later: stage == 1}, true
				}
				return Value{}, false
			}
		}
		once, err := ExpandText(text, lookup(2), true)
		first, errFirst := ExpandText(text, lookup(1), false)
		if err != nil {
			require.Error(t, errFirst)
			return
		}
		if errFirst != nil {
			require.Contains(t, text, "${LATER}")
			return
		}
		again, err := ExpandText(first, lookup(1), false)
		require.NoError(t, err)
		require.Equal(t, first, again)
		second, err := ExpandText(first, lookup(2), true)
		require.NoError(t, err)
		require.Equal(t, once, second, "in two stages, by %q", first)
		if !strings.Contains(text, "${") {
			require.Equal(t, text, once)
		}
	})
}

// What is read is written, and read again as the same.
func FuzzParseConfig(f *testing.F) {
	for i, seed := range []string{
		`{}`, `{"env":{"A":"1"},"timeout":"90s"}`, `{"image":"x","resources":{"memory":"512m","cpus":1.5},"ports":[{"container":80}]}`,
		`{"ref":"v1","depth":0,"shared":["a"],"auth":{"password":"x"}}`, `{"manifest":"a: b","patches":[{"patch":"{}"}],"replicas":0}`,
		`{"limits":{"memory":"9007199254740993"}}`, `{"timeout":"1s"}{`, `null`,
	} {
		f.Add(i%len(Types), []byte(seed))
	}
	f.Fuzz(func(t *testing.T, i int, text []byte) {
		of := Types[uint(i)%uint(len(Types))]
		read, err := ParseConfig(of, text)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		written, err := read.JSON()
		require.NoError(t, err)
		again, err := ParseConfig(of, written)
		require.NoError(t, err, "%s", written)
		twice, err := again.JSON()
		require.NoError(t, err)
		require.Equal(t, string(written), string(twice))
		require.Empty(t, Changes(read, again))
	})
}

func FuzzBytes(f *testing.F) {
	for _, seed := range []string{"", "0", "512m", "1.5g", "2 GiB", "9007199254740993", "4611686018427387904", "4611686018427387905", "-1", "nan", "inf", "1e3", "0x10", "5i", "b", "k", "1kk", "1_000"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var b Bytes
		if b.UnmarshalText([]byte(text)) != nil {
			return
		}
		require.GreaterOrEqual(t, int64(b), int64(0))
		var again Bytes
		require.NoError(t, again.UnmarshalText([]byte(b.String())), "%q is %s", text, b)
		require.Equal(t, b, again, "%q", text)
		if whole, err := strconv.ParseInt(text, 10, 64); err == nil {
			require.Equal(t, whole, int64(b))
		}
	})
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "512m": 512 << 20, "512MB": 512 << 20, "2 GiB": 2 << 30, "1.5g": 3 << 29, "10Ki": 10 << 10, "7b": 7, "9007199254740993": 1<<53 + 1, "4t": 4 << 40,
	} {
		var b Bytes
		require.NoError(t, b.UnmarshalText([]byte(text)), text)
		require.Equal(t, want, int64(b), text)
	}
	for _, text := range []string{"", "b", "m", "-1", "-1m", "nan", "inf", "1e3", "0x10", "5i", "5ib", "1kk", "1_000", "1 2", "4611686018427387905", "9999999999t", "1.5.5m"} {
		var b Bytes
		require.Error(t, b.UnmarshalText([]byte(text)), text)
	}
	var b Bytes
	require.NoError(t, b.UnmarshalJSON([]byte("9007199254740993")))
	require.Equal(t, "9007199254740993", b.String())
}
