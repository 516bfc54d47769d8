package release

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/quicflow/quicflow/internal/lazyregexp"
)

// Bytes is a number of bytes, written as Docker does: "512m", "1.5g", "1048576". Units are powers of 1024.
type Bytes int64

var byteUnits = []struct {
	suffix string
	size   int64
}{{"t", 1 << 40}, {"g", 1 << 30}, {"m", 1 << 20}, {"k", 1 << 10}}

// String writes it with the largest unit that leaves a whole number.
func (b Bytes) String() string {
	for _, u := range byteUnits {
		if b != 0 && int64(b)%u.size == 0 {
			return strconv.FormatInt(int64(b)/u.size, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// MarshalText writes what String does.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

var byteForm = lazyregexp.New(`^([0-9]+(?:\.[0-9]+)?) ?(?:([kmgt])i?)?b?$`)

const maxBytes = 1 << 62

// UnmarshalText reads "512m", "512mb", "512MiB" or plain bytes; negative values are refused.
func (b *Bytes) UnmarshalText(text []byte) error {
	wrong := fmt.Errorf("%q is not a size such as 512m or 2g", text)
	parts := byteForm.FindStringSubmatch(strings.ToLower(strings.TrimSpace(string(text))))
	if parts == nil {
		return wrong
	}
	size := int64(1)
	for _, u := range byteUnits {
		if u.suffix == parts[2] {
			size = u.size
		}
	}
	if whole, err := strconv.ParseInt(parts[1], 10, 64); err == nil { // a float does not hold every whole number
		if whole > maxBytes/size {
			return wrong
		}
		*b = Bytes(whole * size)
		return nil
	}
	v, err := strconv.ParseFloat(parts[1], 64)
	if err != nil || v*float64(size) > maxBytes {
		return wrong
	}
	*b = Bytes(v * float64(size))
	return nil
}

// UnmarshalJSON reads "512m" or 536870912.
func (b *Bytes) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		text = string(data) // a number, or nothing that UnmarshalText takes
	}
	return b.UnmarshalText([]byte(text))
}
