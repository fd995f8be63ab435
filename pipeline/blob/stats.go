package blob

import "sync/atomic"

// Stats are the counts of a Reader since it was made.
type Stats struct {
	Requests  int64 // GET requests sent
	Retries   int64 // requests sent again, after a fault
	Throttled int64 // of these: the store asked for fewer
	Restarts  int64 // reads begun again because the blob grew before a body could be resumed
	Bytes     int64 // body bytes received: bytes_fetched
	Chunks    int64 // chunks emitted
	// ChunkBytes are the bytes of the chunks emitted.
	ChunkBytes int64
	Failures   int64               // calls of ReadNew that gave an error
	Outcomes   [OutcomeCount]int64 // calls of ReadNew by outcome
}

type counters struct {
	requests, retries, throttled, restarts, bytes, chunks, chunkBytes, failures atomic.Int64
	outcomes                                                                    [OutcomeCount]atomic.Int64
}

// Stats gives the counts; they only rise. It may be called at any time.
func (r *Reader) Stats() Stats {
	c := &r.count
	s := Stats{
		Requests: c.requests.Load(), Retries: c.retries.Load(), Throttled: c.throttled.Load(),
		Restarts: c.restarts.Load(), Bytes: c.bytes.Load(), Chunks: c.chunks.Load(),
		ChunkBytes: c.chunkBytes.Load(), Failures: c.failures.Load(),
	}
	for i := range s.Outcomes {
		s.Outcomes[i] = c.outcomes[i].Load()
	}
	return s
}
