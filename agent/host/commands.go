package host

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
	gohost "github.com/shirou/gopsutil/v4/host"
	"github.com/shirou/gopsutil/v4/load"
	"github.com/shirou/gopsutil/v4/mem"
	"github.com/shirou/gopsutil/v4/process"

	"github.com/quicflow/quicflow/agent/command"
	"github.com/quicflow/quicflow/internal/release"
)

// Commands are those that look at the host; none of them changes anything.
func Commands() map[string]command.Command {
	engine := newEngine("")
	return map[string]command.Command{
		"system.info":         {Run: systemInfo, ReadOnly: true},
		"system.collect_info": {Run: collectInfo, ReadOnly: true},
		"process.list":        {Run: listProcesses, ReadOnly: true},
		"container.list":      {Run: engine.list, ReadOnly: true},
		"container.logs":      {Run: engine.logs, ReadOnly: true},
	}
}

// System is the result of system.info: what a host is, and how busy.
type System struct {
	Hostname       string    `json:"hostname"`
	OS             string    `json:"os"`
	Distribution   string    `json:"distribution"` // name and version
	Kernel         string    `json:"kernel"`
	Arch           string    `json:"arch"`
	Virtualization string    `json:"virtualization,omitempty"`
	CPUs           int       `json:"cpus"`
	Load           *Load     `json:"load,omitempty"`
	Memory         Memory    `json:"memory"`
	Swap           Swap      `json:"swap"`
	Disks          []Disk    `json:"disks"`
	Processes      uint64    `json:"processes"`
	BootedAt       time.Time `json:"booted_at"`
	UptimeSeconds  uint64    `json:"uptime_seconds"`
	Time           time.Time `json:"time"`
	TimeZone       string    `json:"time_zone"`
}

// Load is how many processes ran or waited on average over 1, 5 and 15 minutes.
type Load struct {
	Load1  float64 `json:"load1"`
	Load5  float64 `json:"load5"`
	Load15 float64 `json:"load15"`
}

// Memory is in bytes.
type Memory struct {
	Total     uint64 `json:"total"`
	Available uint64 `json:"available"`
	Used      uint64 `json:"used"`
}

// Swap is in bytes.
type Swap struct {
	Total uint64 `json:"total"`
	Used  uint64 `json:"used"`
}

// Disk is a file system on a device of the host, in bytes.
type Disk struct {
	Mountpoint  string  `json:"mountpoint"`
	Device      string  `json:"device"`
	Filesystem  string  `json:"filesystem"`
	Total       uint64  `json:"total"`
	Used        uint64  `json:"used"`
	Free        uint64  `json:"free"` // for users other than root
	UsedPercent float64 `json:"used_percent"`
}

func systemInfo(ctx context.Context, call *command.Call) (any, error) {
	if err := call.Decode(new(struct{})); err != nil {
		return nil, err
	}
	info, err := gohost.InfoWithContext(ctx)
	if err != nil {
		return nil, err
	}
	memory, err := mem.VirtualMemoryWithContext(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	zone, _ := now.Zone()
	s := &System{
		Hostname: info.Hostname, OS: info.OS, Distribution: distribution(info.Platform, info.PlatformVersion),
		Kernel: info.KernelVersion, Arch: runtime.GOARCH, CPUs: runtime.NumCPU(),
		Memory:    Memory{memory.Total, memory.Available, memory.Used},
		Processes: info.Procs, BootedAt: time.Unix(int64(info.BootTime), 0).UTC(), UptimeSeconds: info.Uptime,
		Time: now.UTC(), TimeZone: zone, Disks: []Disk{},
	}
	if info.VirtualizationRole == "guest" {
		s.Virtualization = info.VirtualizationSystem
	}
	if n, err := cpu.CountsWithContext(ctx, true); err == nil {
		s.CPUs = n
	}
	if avg, err := load.AvgWithContext(ctx); err == nil {
		s.Load = &Load{avg.Load1, avg.Load5, avg.Load15}
	}
	if swap, err := mem.SwapMemoryWithContext(ctx); err == nil {
		s.Swap = Swap{swap.Total, swap.Used}
	}
	for _, p := range partitions(ctx) {
		if u, err := disk.UsageWithContext(ctx, p.Mountpoint); err == nil {
			s.Disks = append(s.Disks, Disk{p.Mountpoint, p.Device, p.Fstype, u.Total, u.Used, u.Free, u.UsedPercent})
		}
	}
	return s, ctx.Err()
}

// The limits of process.list.
const (
	defaultProcesses = 100
	maxProcesses     = 10_000
	maxCommandLine   = 512 // bytes
)

// Processes is the result of process.list.
type Processes struct {
	Total     int       `json:"total"` // those that match
	Processes []Process `json:"processes"`
}

// Process is one of the host.
type Process struct {
	PID        int32     `json:"pid"`
	PPID       int32     `json:"ppid"`
	Name       string    `json:"name"`
	User       string    `json:"user,omitempty"`
	State      string    `json:"state,omitempty"` // running, sleep, idle, zombie, ...
	CPUPercent float64   `json:"cpu_percent"`     // of one CPU, on average since it started
	RSS        uint64    `json:"rss"`             // bytes
	Threads    int32     `json:"threads"`
	StartedAt  time.Time `json:"started_at"`
	Command    string    `json:"command,omitempty"` // its beginning
}

func listProcesses(ctx context.Context, call *command.Call) (any, error) {
	want := struct {
		Name  string `json:"name"`  // part of the name or the command line
		User  string `json:"user"`  //
		Sort  string `json:"sort"`  // cpu, memory or pid
		Limit int    `json:"limit"` //
	}{Sort: "cpu", Limit: defaultProcesses}
	if err := call.Decode(&want); err != nil {
		return nil, err
	}
	order, ok := map[string]func(a, b Process) int{
		"cpu":    func(a, b Process) int { return compare(b.CPUPercent, a.CPUPercent) },
		"memory": func(a, b Process) int { return compare(b.RSS, a.RSS) },
		"pid":    func(a, b Process) int { return compare(a.PID, b.PID) },
	}[want.Sort]
	switch {
	case !ok:
		return nil, release.Invalid("payload.sort", "%q is none of cpu, memory, pid", want.Sort)
	case want.Limit < 1 || want.Limit > maxProcesses:
		return nil, release.Invalid("payload.limit", "%d is not between 1 and %d", want.Limit, maxProcesses)
	}
	all, err := process.ProcessesWithContext(ctx)
	if err != nil {
		return nil, err
	}
	list := Processes{Processes: []Process{}}
	for _, p := range all {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		entry, ok := readProcess(ctx, p)
		if !ok || want.User != "" && entry.User != want.User ||
			!strings.Contains(entry.Name, want.Name) && !strings.Contains(entry.Command, want.Name) {
			continue
		}
		list.Processes = append(list.Processes, entry)
	}
	slices.SortStableFunc(list.Processes, order)
	list.Total = len(list.Processes)
	list.Processes = list.Processes[:min(list.Total, want.Limit)]
	return list, nil
}

func compare[T int32 | uint64 | float64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// readProcess reports false for one that has ended meanwhile. What may not be read is left out.
func readProcess(ctx context.Context, p *process.Process) (Process, bool) {
	e := Process{PID: p.Pid}
	var err error
	if e.Name, err = p.NameWithContext(ctx); err != nil {
		return e, false
	}
	e.PPID, _ = p.PpidWithContext(ctx)
	e.User, _ = p.UsernameWithContext(ctx)
	if states, err := p.StatusWithContext(ctx); err == nil {
		e.State = strings.Join(states, ",")
	}
	e.CPUPercent, _ = p.CPUPercentWithContext(ctx)
	if m, err := p.MemoryInfoWithContext(ctx); err == nil && m != nil {
		e.RSS = m.RSS
	}
	e.Threads, _ = p.NumThreadsWithContext(ctx)
	if ms, err := p.CreateTimeWithContext(ctx); err == nil {
		e.StartedAt = time.UnixMilli(ms).UTC()
	}
	line, _ := p.CmdlineWithContext(ctx)
	e.Command = strings.ToValidUTF8(line[:min(len(line), maxCommandLine)], "")
	return e, true
}

var errNoEngine = errors.New("this host has no container engine that the agent can reach")
