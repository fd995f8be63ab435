package audit

import (
	"cmp"
	"maps"
	"slices"
)

// Places of the parts of a batch's ID, as the design fixes them: the ledger in the
// upper 16 bits, then 12 of the shard, then 36 of the sequence.
const (
	shardBits = 36
	shardMask = 1<<12 - 1
	seqMask   = 1<<36 - 1
)

// batches: each shard numbers its batches 1, 2, 3 ... under IDs of their own, and its
// watermark never goes back.
func (a *auditor) batches() {
	ids := map[uint64]bool{}
	for _, b := range a.book.Batches {
		if ids[b.ID] {
			a.find(&a.verdict.Batches, "batch %d of shard %d: its ID %d is that of another batch", b.Seq, b.Shard, b.ID)
		}
		ids[b.ID] = true
		if int(b.ID>>shardBits&shardMask) != b.Shard || b.ID&seqMask != b.Seq {
			a.find(&a.verdict.Batches, "batch %d of shard %d: its ID %d says otherwise", b.Seq, b.Shard, b.ID)
		}
		a.chains[b.Shard] = append(a.chains[b.Shard], b)
	}
	a.shards = slices.Sorted(maps.Keys(a.chains))
	for _, shard := range a.shards {
		chain := a.chains[shard]
		slices.SortStableFunc(chain, func(x, y Batch) int { return cmp.Compare(x.Seq, y.Seq) })
		a.chain(shard, chain)
	}
	a.ranged()
}

func (a *auditor) chain(shard int, chain []Batch) {
	watermark := int64(0)
	for i := range chain {
		b := &chain[i]
		if want := uint64(i + 1); b.Seq != want {
			a.find(&a.verdict.Batches, "shard %d: batch %d stands where %d is due: a gap, or two batches of one number", shard, b.Seq, want)
		}
		if b.WatermarkMS < watermark {
			a.find(&a.verdict.Batches, "shard %d: batch %d takes the watermark back from %d to %d", shard, b.Seq, watermark, b.WatermarkMS)
		}
		for _, u := range b.Units {
			of := content{u.Blob, u.Generation}
			a.ranges[of] = append(a.ranges[of], &span{Unit: u, batch: b, prior: watermark})
		}
		watermark = max(watermark, b.WatermarkMS)
	}
}

// ranged: the units of a blob's generation follow each other without overlap or hole,
// in the order of the batches of one shard.
func (a *auditor) ranged() {
	shardOf := map[string]int{}
	for _, of := range sortedContents(a.ranges) {
		spans := a.ranges[of]
		for i, s := range spans {
			if s.Length <= 0 {
				a.find(&a.verdict.Batches, "batch %d of shard %d: a range of %d bytes at byte %d of blob %q", s.batch.Seq, s.batch.Shard, s.Length, s.Offset, of.blob)
			}
			if first, ok := shardOf[of.blob]; ok && first != s.batch.Shard {
				a.find(&a.verdict.Batches, "batch %d of shard %d: blob %q belongs to shard %d", s.batch.Seq, s.batch.Shard, of.blob, first)
			}
			shardOf[of.blob] = s.batch.Shard
			if i == 0 {
				continue
			}
			if end := spans[i-1].Offset + spans[i-1].Length; s.Offset != end {
				a.find(&a.verdict.Batches, "batch %d of shard %d: a range of blob %q, generation %d begins at byte %d, the one before it ended at byte %d: %s",
					s.batch.Seq, s.batch.Shard, of.blob, of.generation, s.Offset, end, overlapOrHole(s.Offset, end))
			}
		}
		slices.SortStableFunc(spans, func(x, y *span) int { return cmp.Compare(x.Offset, y.Offset) })
	}
}

func overlapOrHole(offset, end int64) string {
	if offset < end {
		return "they overlap"
	}
	return "a hole"
}

// spanOf finds the unit that committed the bytes of a tuple; of is what the pipeline
// calls the content.
func (a *auditor) spanOf(of content, offset int64) (*span, bool) {
	spans := a.ranges[of]
	i, exact := slices.BinarySearchFunc(spans, offset, func(s *span, offset int64) int { return cmp.Compare(s.Offset, offset) })
	if !exact {
		i--
	}
	if i < 0 || offset >= spans[i].Offset+spans[i].Length {
		return nil, false
	}
	return spans[i], true
}

// inItsBatch: what lands carries the batch whose manifest committed its bytes.
func (a *auditor) inItsBatch(where string, t Tuple, of content, batch uint64) {
	s, ok := a.spanOf(of, t.Offset)
	switch {
	case !ok:
		a.find(&a.verdict.Batches, "%s has %s of batch %d: no manifest covers its bytes under generation %d", where, t, batch, of.generation)
	case s.batch.ID != batch:
		a.find(&a.verdict.Batches, "%s has %s of batch %d: its bytes belong to batch %d", where, t, batch, s.batch.ID)
	}
}

// units: rows carry the batch of their bytes, and a committed unit has landed with as
// many rows as it says.
func (a *auditor) units() {
	for _, r := range a.book.Landed {
		if i, ok := a.numbers[r.Number]; ok {
			a.inItsBatch("flows", a.book.Written[i], content{r.Blob, r.Generation}, r.BatchID)
		}
	}
	for _, r := range a.book.Topic {
		if i, ok := a.numbers[r.Number]; ok {
			a.inItsBatch("topic", a.book.Written[i], content{r.Blob, r.Generation}, r.BatchID)
		}
	}
	if !a.book.Drained {
		return
	}
	for _, of := range sortedContents(a.ranges) {
		for _, s := range a.ranges[of] {
			if s.rows != s.Rows {
				a.find(&a.verdict.Batches, "batch %d of shard %d: bytes %d to %d of blob %q hold %d good tuples, the manifest says %d rows",
					s.batch.Seq, s.batch.Shard, s.Offset, s.Offset+s.Length, of.blob, s.rows, s.Rows)
			}
		}
	}
}

// assign gives each good tuple that was committed to its unit.
func (a *auditor) assign(landed []int) {
	for i, t := range a.book.Written {
		of, known := a.contentOf(t)
		if !known || t.Reason != "" || t.Gone && landed[i] == 0 {
			continue
		}
		if s, ok := a.spanOf(of, t.Offset); ok {
			a.unitOf[i] = s
			s.rows++
			s.latest = max(s.latest, t.TimeMS)
		}
	}
}

// contentOf gives what the pipeline calls the content that a tuple is of. Where it
// landed no row of it, the first content can only be generation 0.
func (a *auditor) contentOf(t Tuple) (content, bool) {
	got, known := a.seen[content{t.Blob, t.Generation}]
	if !known && t.Generation == 0 {
		return content{t.Blob, 0}, true
	}
	return content{t.Blob, got}, known
}

func sortedContents[V any](m map[content]V) []content {
	return slices.SortedFunc(maps.Keys(m), func(x, y content) int {
		return cmp.Or(cmp.Compare(x.blob, y.blob), cmp.Compare(x.generation, y.generation))
	})
}
