// Package host knows the host that an agent runs on: its facts, and the commands that list what it has and what runs there.
package host

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
	gohost "github.com/shirou/gopsutil/v4/host"
	"github.com/shirou/gopsutil/v4/mem"

	"github.com/quicflow/quicflow/agent"
)

// Facts gives what changes seldom. What cannot be read is left out.
func Facts(ctx context.Context) agent.Facts {
	var f agent.Facts
	if info, err := gohost.InfoWithContext(ctx); err == nil {
		f.Hostname = info.Hostname
		f.Distribution, f.DistributionVersion = info.Platform, info.PlatformVersion
		f.Kernel = info.KernelVersion
		if info.VirtualizationRole == "guest" {
			f.Virtualization = info.VirtualizationSystem
		}
	}
	if n, err := cpu.CountsWithContext(ctx, true); err == nil {
		f.CPUs = n
	}
	if models, err := cpu.InfoWithContext(ctx); err == nil && len(models) > 0 {
		f.CPUModel = models[0].ModelName
	}
	if m, err := mem.VirtualMemoryWithContext(ctx); err == nil {
		f.MemoryMB = m.Total >> 20
	}
	for _, p := range partitions(ctx) {
		if u, err := disk.UsageWithContext(ctx, p.Mountpoint); err == nil {
			f.Disks = append(f.Disks, agent.DiskFact{Mountpoint: p.Mountpoint, Device: p.Device, Filesystem: p.Fstype, SizeMB: u.Total >> 20})
		}
	}
	f.Network = network()
	return f
}

// partitions lists what lies on devices of the host itself, each device once, in the order of the mount points.
func partitions(ctx context.Context) []disk.PartitionStat {
	all, _ := disk.PartitionsWithContext(ctx, false) // it gives what it could read
	slices.SortStableFunc(all, func(a, b disk.PartitionStat) int { return strings.Compare(a.Mountpoint, b.Mountpoint) })
	seen := map[string]bool{}
	return slices.DeleteFunc(all, func(p disk.PartitionStat) bool {
		again := seen[p.Device]
		seen[p.Device] = true
		return again || strings.HasPrefix(p.Device, "/dev/loop") || p.Fstype == "squashfs"
	})
}

// network lists the interfaces that are up and have addresses which others may use.
func network() []agent.NetworkFact {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var facts []agent.NetworkFact
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addresses, err := i.Addrs()
		if err != nil {
			continue
		}
		fact := agent.NetworkFact{Name: i.Name, MAC: i.HardwareAddr.String()}
		for _, a := range addresses {
			if ip, _, err := net.ParseCIDR(a.String()); err == nil && ip.IsGlobalUnicast() {
				fact.Addresses = append(fact.Addresses, ip.String())
			}
		}
		if len(fact.Addresses) > 0 {
			slices.Sort(fact.Addresses)
			facts = append(facts, fact)
		}
	}
	slices.SortFunc(facts, func(a, b agent.NetworkFact) int { return strings.Compare(a.Name, b.Name) })
	return facts
}

// distribution is a name for people, such as "debian 12.11".
func distribution(platform, version string) string {
	return strings.TrimSpace(fmt.Sprintf("%s %s", platform, version))
}
