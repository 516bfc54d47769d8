package rig

import (
	"os"
	"strconv"
	"strings"
)

// Datagrams counts the UDP of the whole machine since it started.
type Datagrams struct {
	Sent    int64 `json:"sent"`
	Dropped int64 `json:"dropped"` // that found no room in a socket's buffer, to receive or to send
}

// UDP reads the machine's counters. They stay at zero where there is no /proc/net/snmp.
func UDP() (d Datagrams) {
	text, _ := os.ReadFile("/proc/net/snmp")
	var names []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "Udp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names {
			value, _ := strconv.ParseInt(fields[i], 10, 64)
			switch name {
			case "OutDatagrams":
				d.Sent += value
			case "RcvbufErrors", "SndbufErrors":
				d.Dropped += value
			}
		}
	}
	return d
}

// Since gives what came since before.
func (d Datagrams) Since(before Datagrams) Datagrams {
	return Datagrams{Sent: d.Sent - before.Sent, Dropped: d.Dropped - before.Dropped}
}
