package audit

import (
	"math"
	"regexp"
)

// hourOf matches what a path says of its hour. What is left of the blob's name without
// it names the stream.
var hourOf = regexp.MustCompile(`/y=\d+/m=\d+/d=\d+/h=\d+/m=\d+`)

func streamOf(blob string) string { return hourOf.ReplaceAllString(blob, "") }

// watermarks: a watermark rises to no more than the event times that were read let it,
// and waits for every stream that the manifest does not call idle. Whatever it does
// beyond makes rows late that were in time.
func (a *auditor) watermarks() {
	for _, shard := range a.shards {
		before := int64(0)
		latest := map[string]int64{} // by stream
		for i := range a.chains[shard] {
			b := &a.chains[shard][i]
			for _, u := range b.Units {
				if s, ok := a.spanOf(content{u.Blob, u.Generation}, u.Offset); ok && s.latest > 0 {
					stream := streamOf(u.Blob)
					latest[stream] = max(latest[stream], s.latest)
				}
			}
			if b.WatermarkMS > before && b.WatermarkMS != math.MaxInt64 {
				a.justified(b, latest)
			}
			before = max(before, b.WatermarkMS)
		}
	}
}

func (a *auditor) justified(b *Batch, latest map[string]int64) {
	ahead, passed := false, 0
	for _, at := range latest {
		if at-a.book.OutOfOrdernessMS < b.WatermarkMS {
			passed++
		} else {
			ahead = true
		}
	}
	switch {
	case !ahead:
		a.find(&a.verdict.Batches, "shard %d: batch %d moves the watermark to %d ms, ahead of every event time that was read", b.Shard, b.Seq, b.WatermarkMS)
	case passed > b.Idle:
		a.find(&a.verdict.Batches, "shard %d: batch %d moves the watermark to %d ms past %d streams, of which %d are idle", b.Shard, b.Seq, b.WatermarkMS, passed, b.Idle)
	}
}
