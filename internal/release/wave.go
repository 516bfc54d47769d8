package release

import "math"

// Wave is a run of targets that go together: the canary first, if there is one, then the waves.
type Wave struct {
	Number int  `json:"number"` // 0 is the canary; the waves count from 1
	Size   int  `json:"size"`
	Canary bool `json:"canary,omitempty"`
}

// PlanWaves cuts n targets into waves. Sizes add up to n and none is empty.
// Without a canary the first wave has number 1.
func PlanWaves(n int, s Strategy) []Wave {
	var waves []Wave
	done := 0
	if s.Canary != nil && s.Canary.Percent > 0 && n > 0 {
		size := max(1, share(n, s.Canary.Percent))
		waves = append(waves, Wave{Number: 0, Size: size, Canary: true})
		done = size
	}
	number := 1
	for _, percent := range append(append([]float64(nil), s.Waves...), 100) {
		if upTo := share(n, percent); upTo > done {
			waves = append(waves, Wave{Number: number, Size: upTo - done})
			number++
			done = upTo
		}
	}
	return waves
}

// InWaves gives who of the targets is in each of the waves that PlanWaves made of their number: their order is that of the waves.
// The parts share the memory of clients.
func InWaves(clients []string, waves []Wave) [][]string {
	members := make([][]string, len(waves))
	for i, w := range waves {
		members[i], clients = clients[:w.Size:w.Size], clients[w.Size:]
	}
	return members
}

// share gives percent of n, rounded up and never above n.
func share(n int, percent float64) int {
	return min(n, int(math.Ceil(float64(n)*percent/100-1e-9)))
}
