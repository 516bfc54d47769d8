package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// report is all that a run measured, in the form of its JSON file. Times are in nanoseconds, sizes in bytes.
type report struct {
	Date    time.Time `json:"date"`
	Machine machine   `json:"machine"`
	GOGC    string    `json:"gogc"`
	Preset  string    `json:"preset"`
	Payload int       `json:"payload"`

	NATSVersion string            `json:"nats_version,omitempty"`
	Throughput  []throughputLine  `json:"throughput,omitempty"`
	Memory      []memoryResult    `json:"memory,omitempty"`
	Heartbeats  []heartbeatResult `json:"heartbeats,omitempty"`
	Promises    []promisesResult  `json:"promises,omitempty"`
	Broadcast   []broadcastResult `json:"broadcast,omitempty"`
	Storm       []stormResult     `json:"storm,omitempty"`
}

// machine is what the figures depend on.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	RAM    int64  `json:"ram"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	Arch   string `json:"arch"`
}

func newReport(o options) report {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version(), Arch: runtime.GOOS + "/" + runtime.GOARCH}
	m.CPU = field("/proc/cpuinfo", "model name")
	kilobytes, _ := strconv.ParseInt(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"), 10, 64)
	m.RAM = kilobytes << 10
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	m.Kernel = strings.TrimSpace(string(release))
	return report{Date: time.Now().UTC().Truncate(time.Second), Machine: m, GOGC: o.gogc, Preset: o.preset, Payload: o.payload}
}

// field is the value of the first line with a name in a file of /proc.
func field(path, name string) string {
	text, _ := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func (r *report) print() {
	m := r.Machine
	fmt.Printf("%s\n%s, %d CPUs, %s of memory, Linux %s, %s %s, GOGC=%s, preset %s\n",
		r.Date.Format(time.DateTime+" MST"), m.CPU, m.Cores, size(m.RAM), m.Kernel, m.Go, m.Arch, r.GOGC, r.Preset)
}

func (r *report) write(path string) error {
	if path == "" {
		return nil
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

func size(bytes int64) string {
	switch {
	case bytes >= 10<<30:
		return fmt.Sprintf("%.0f GiB", float64(bytes)/(1<<30))
	case bytes >= 1<<20:
		return fmt.Sprintf("%.0f MiB", float64(bytes)/(1<<20))
	}
	return fmt.Sprintf("%.1f KiB", float64(bytes)/(1<<10))
}

// short rounds a time to three digits or so.
func short(d time.Duration) string {
	for _, step := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
		if d >= 100*step {
			return d.Round(step).String()
		}
		if d >= step {
			return d.Round(step / 100).String()
		}
	}
	return d.String()
}

func median[T int64 | float64 | time.Duration](values []T) T {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

func ratio(a, b float64) string {
	if b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", a/b)
}

func heading(format string, values ...any) { fmt.Printf("\n"+format+"\n", values...) }
