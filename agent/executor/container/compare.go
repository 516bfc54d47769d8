package container

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// lost says which settings a container does not have as they were asked for: engines leave out what their kernel cannot do.
func lost(w *wanted, c *found) []string { return differences(w, c, false) }

// differences says which settings differ from what is wanted; with all, also those that someone set and nobody asked for.
func differences(w *wanted, c *found, all bool) []string {
	var fields []string
	check := func(field string, asked, same bool) {
		if (asked || all) && !same {
			fields = append(fields, field)
		}
	}
	engines := func(field string, asked, same bool) { // where an engine has defaults of its own
		if asked && !same {
			fields = append(fields, field)
		}
	}
	want, have := w.host.Resources, c.HostConfig.Resources
	check("resources.memory", want.Memory != 0, want.Memory == have.Memory)
	check("resources.memory_reservation", want.MemoryReservation != 0, want.MemoryReservation == have.MemoryReservation)
	engines("resources.memory_swap", want.MemorySwap != 0, want.MemorySwap == have.MemorySwap)
	check("resources.cpus", want.NanoCPUs != 0, want.NanoCPUs == have.NanoCPUs || have.CPUPeriod > 0 && want.NanoCPUs == have.CPUQuota*1e9/have.CPUPeriod)
	check("resources.cpu_shares", want.CPUShares != 0, want.CPUShares == have.CPUShares)
	check("resources.cpuset", want.CpusetCpus != "", want.CpusetCpus == have.CpusetCpus)
	check("resources.pids", want.PidsLimit != nil, pids(want.PidsLimit) == pids(have.PidsLimit))
	check("resources.blkio_weight", want.BlkioWeight != 0, want.BlkioWeight == have.BlkioWeight)
	engines("oom_score_adj", w.host.OomScoreAdj != 0, w.host.OomScoreAdj == c.HostConfig.OomScoreAdj)
	engines("sysctls", len(w.host.Sysctls) > 0, maps.Equal(w.host.Sysctls, c.HostConfig.Sysctls))
	engines("annotations", len(w.host.Annotations) > 0, maps.Equal(w.host.Annotations, c.HostConfig.Annotations))
	engines("ulimits", len(want.Ulimits) > 0, len(want.Ulimits) == len(have.Ulimits))
	check("restart", true, w.host.RestartPolicy.IsSame(&c.HostConfig.RestartPolicy))
	engines("networks", len(w.networks) > 0, len(w.networks) == len(c.NetworkSettings.Networks) && !slices.ContainsFunc(w.networks, func(e endpoint) bool {
		return c.NetworkSettings.Networks[e.name] == nil
	}))
	return fields
}

// pids is a limit of processes; 0 is none.
func pids(limit *int64) int64 {
	if limit == nil || *limit < 0 {
		return 0
	}
	return *limit
}

// refuse is the error for what the engine did not take.
func refuse(fields, warnings []string) error {
	text := "the Docker engine of this host does not take " + strings.Join(fields, ", ")
	if len(warnings) > 0 {
		text += ": " + strings.TrimSpace(warnings[0])
	}
	return fmt.Errorf("%s", firstLine(text))
}
