package rig

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc/PID/stat.
const tick = time.Second / 100

// Usage is what the system says of a process.
type Usage struct {
	RSS  int64         `json:"rss"`      // bytes
	Peak int64         `json:"peak_rss"` // bytes
	CPU  time.Duration `json:"cpu"`
}

// UsageOf reads /proc/PID.
func UsageOf(pid int) (Usage, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	fields, err := stat(dir)
	if err != nil {
		return Usage{}, err
	}
	var u Usage
	u.CPU, err = ticks(fields[11:13]) // utime and stime
	if err != nil {
		return Usage{}, err
	}
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return Usage{}, err
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		kilobytes, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "VmRSS":
			u.RSS = kilobytes << 10
		case "VmHWM":
			u.Peak = kilobytes << 10
		}
	}
	return u, nil
}

// FamilyCPU is the CPU time of a process, of its children, and of those that have ended.
func FamilyCPU(pid int) (time.Duration, error) {
	fields, err := stat("/proc/" + strconv.Itoa(pid))
	if err != nil {
		return 0, err
	}
	sum, err := ticks(fields[11:15]) // its own, and that of children that were waited for
	if err != nil {
		return 0, err
	}
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, dir := range all {
		fields, err := stat(dir)
		if err != nil || fields[1] != strconv.Itoa(pid) {
			continue // gone, or not a child
		}
		own, err := ticks(fields[11:13])
		if err != nil {
			return 0, err
		}
		sum += own
	}
	return sum, nil
}

// MachineCPU is the time that all CPUs of the machine were busy.
func MachineCPU() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line) // cpu user nice system idle iowait irq softirq …
	if len(fields) < 8 {
		return 0, errors.New("/proc/stat is too short")
	}
	return ticks([]string{fields[1], fields[2], fields[3], fields[6], fields[7]})
}

// stat gives the fields of proc_pid_stat(5) from the third on, the first after the name, which may hold anything.
func stat(dir string) ([]string, error) {
	text, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 15 {
		return nil, errors.New(dir + "/stat is too short")
	}
	return fields, nil
}

func ticks(fields []string) (sum time.Duration, err error) {
	for _, field := range fields {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}
