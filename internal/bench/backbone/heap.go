package main

import (
	"cmp"
	"maps"
	"math"
	"runtime"
	"slices"
	"strings"

	"github.com/quicflow/quicflow/internal/bench/rig"
)

// share is the live heap that a group of packages has allocated, in bytes.
type share struct {
	Package string `json:"package"`
	Bytes   int64  `json:"bytes"`
}

// groups are what heap tells apart, by the beginning of a function's name. A standard package that is not here (bytes, sync, …) is
// counted for who called it.
var groups = []struct{ prefix, name string }{
	{"github.com/quicflow/quicflow/proto/", "quicflow (messages)"},
	{"github.com/quicflow/quicflow/internal/bench/", "the measurement"},
	{"main.", "the measurement"},
	{"github.com/quicflow/quicflow/", "quicflow"},
	{"github.com/quic-go/quic-go", "quic-go"},
	{"google.golang.org/protobuf", "protobuf"},
	{"github.com/prometheus/", "prometheus"},
	{"modernc.org/", "sqlite"},
	{"database/sql", "database/sql"},
	{"crypto/x509", "crypto/x509"},
	{"crypto/", "crypto/tls and other crypto"},
	{"encoding/asn1", "crypto/x509"},
	{"vendor/golang.org/x/crypto/", "crypto/tls and other crypto"},
}

// heap is the live heap by who allocated it, after a collection, the largest first. The profile is a sample; see
// memProfileRate.
func heap(rig.None) ([]share, error) {
	runtime.GC()
	runtime.GC() // the profile lags behind by one
	var records []runtime.MemProfileRecord
	for n, ok := runtime.MemProfile(nil, false); !ok; {
		records = make([]runtime.MemProfileRecord, n+50)
		n, ok = runtime.MemProfile(records, false)
		records = records[:min(n, len(records))]
	}
	bytes := make(map[string]int64)
	for _, r := range records {
		bytes[groupOf(r.Stack())] += unsampled(r.InUseObjects(), r.InUseBytes())
	}
	shares := make([]share, 0, len(bytes))
	for name := range maps.Keys(bytes) {
		shares = append(shares, share{name, bytes[name]})
	}
	slices.SortFunc(shares, func(a, b share) int { return cmp.Compare(b.Bytes, a.Bytes) })
	return shares, nil
}

// unsampled estimates what the sampled bytes stand for, as the heap profiles of runtime/pprof do.
func unsampled(objects, bytes int64) int64 {
	if objects == 0 || runtime.MemProfileRate <= 1 {
		return bytes
	}
	size := float64(bytes) / float64(objects)
	return int64(float64(bytes) / (1 - math.Exp(-size/float64(runtime.MemProfileRate))))
}

func groupOf(stack []uintptr) string {
	frames := runtime.CallersFrames(stack)
	for {
		frame, more := frames.Next()
		for _, g := range groups {
			if strings.HasPrefix(frame.Function, g.prefix) {
				return g.name
			}
		}
		if !more {
			return "other"
		}
	}
}
