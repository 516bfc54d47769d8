package main

import (
	"fmt"
	"time"

	"github.com/quicflow/quicflow/internal/bench/rig"
)

// report is all that a run measured, in the form of its JSON file. Times are in nanoseconds, sizes in bytes.
type report struct {
	Date    time.Time   `json:"date"`
	Machine rig.Machine `json:"machine"`
	GOGC    string      `json:"gogc"`
	Preset  string      `json:"preset"`
	Payload int         `json:"payload"`

	NATSVersion string            `json:"nats_version,omitempty"`
	Throughput  []throughputLine  `json:"throughput,omitempty"`
	Memory      []memoryResult    `json:"memory,omitempty"`
	Heartbeats  []heartbeatResult `json:"heartbeats,omitempty"`
	Promises    []promisesResult  `json:"promises,omitempty"`
	Broadcast   []broadcastResult `json:"broadcast,omitempty"`
	Storm       []stormResult     `json:"storm,omitempty"`
}

func newReport(o options) report {
	return report{Date: time.Now().UTC().Truncate(time.Second), Machine: rig.ThisMachine(), GOGC: o.gogc, Preset: o.preset, Payload: o.payload}
}

func (r *report) print() {
	fmt.Printf("%s\n%s, GOGC=%s, preset %s\n", r.Date.Format(time.DateTime+" MST"), r.Machine, r.GOGC, r.Preset)
}
