package job

import "time"

// Total is how many jobs ended one way, and how long they took in all, from their request on.
type Total struct {
	Jobs int
	Took time.Duration
}
