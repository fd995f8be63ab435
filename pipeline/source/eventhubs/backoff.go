package eventhubs

import (
	"math/rand/v2"
	"time"
)

// backoff gives waits that double from min to max, each shortened by up to a half
// at random so that the partitions do not all come back at once.
type backoff struct {
	min, max, now time.Duration
}

func (b *backoff) next() time.Duration {
	b.now = min(max(2*b.now, b.min), b.max)
	return b.now - rand.N(b.now/2+1)
}

func (b *backoff) reset() { b.now = 0 }
