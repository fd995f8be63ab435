package rebuild

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/pipeline"
)

// readWindows finds the watermark of each shard, and the ranges whose rows belong to
// windows that were open under it.
//
// A shard writes a window when its watermark passes the end, if it has a row of it;
// rows that come later are written at once. So the latest end (with its lateness) of
// the windows that a shard wrote is a watermark it had reached; and of a window that
// ends behind that, nothing was written yet.
func (p *Plan) readWindows(ctx context.Context, d Deps, checkpoints []span) error {
	if len(d.Windows) == 0 {
		return nil
	}
	watermarks := make([]int64, p.Ledger.Shards)
	for _, w := range d.Windows {
		if !slices.Contains(p.Tables, w.Table().Name) {
			continue // configured since: it has no rows
		}
		type row struct {
			Shard int
			End   int64
		}
		found, err := ask[row](ctx, d.Target, fmt.Sprintf("SELECT %s AS Shard, toUnixTimestamp64Milli(max(window_end)) AS End FROM %s WHERE %s GROUP BY Shard", shardSQL, w.Table().Name, either(checkpoints)))
		if err != nil {
			return fmt.Errorf("read table %q: %w", w.Table().Name, err)
		}
		for _, r := range found {
			watermarks[r.Shard] = max(watermarks[r.Shard], r.End+w.Lateness.Milliseconds())
		}
	}
	var longest time.Duration
	for _, w := range d.Windows {
		longest = max(longest, w.Size+w.Lateness)
	}
	conds := make([]string, p.Ledger.Shards)
	for shard, c := range checkpoints {
		s := &p.restored.Shards[shard]
		s.Base.Watermark = pipeline.Watermark(watermarks[shard])
		// A window that is open begins after this time.
		conds[shard] = fmt.Sprintf("%s AND time > fromUnixTimestamp64Milli(toInt64(%d))", c.where(), max(0, watermarks[shard]-longest.Milliseconds()))
	}
	return p.readWarm(ctx, d, "("+strings.Join(conds, " OR ")+")")
}

// readWarm makes a manifest of the ranges of each batch with rows in open windows.
func (p *Plan) readWarm(ctx context.Context, d Deps, open string) error {
	type row struct {
		Batch      pipeline.BatchID
		Blob       string
		Generation uint32
		Offset     int64
		Length     int64
		Hash       string
		Rows       int64
		Committed  int64
	}
	found, err := ask[row](ctx, d.Target, fmt.Sprintf(`SELECT batch_id AS Batch, blob AS Blob, generation AS Generation, offset AS Offset, length AS Length, hash AS Hash, rows AS Rows, toUnixTimestamp64Milli(committed) AS Committed
FROM batches FINAL WHERE %s AND rows > 0 AND (batch_id, blob, generation) IN (SELECT batch_id, blob, generation FROM flows WHERE %s)
ORDER BY batch_id, blob, generation, offset`, whole(p.Ledger.ID), open))
	if err != nil {
		return fmt.Errorf("read the table batches: %w", err)
	}
	var batch pipeline.BatchID
	ends := map[pipeline.BlobID]int64{}
	for _, r := range found {
		id, err := pipeline.ParseBlobID(r.Blob)
		if err != nil {
			return err
		}
		s := &p.restored.Shards[r.Batch.Shard()]
		if r.Batch != batch {
			batch = r.Batch
			s.Manifests = append(s.Manifests, pipeline.Manifest{Epoch: p.Epoch, Created: r.Committed, Watermark: s.Base.Watermark})
		}
		m := &s.Manifests[len(s.Manifests)-1]
		u := pipeline.Unit{Blob: id, Generation: r.Generation, Offset: r.Offset, Length: r.Length, Hash: r.Hash, Rows: r.Rows}
		if _, ok := id.Hour(); !ok {
			u.Clock = r.Committed // the fetch was a moment before
		}
		m.Units = append(m.Units, u)
		ends[id] = max(ends[id], u.End())
		p.WarmBytes += r.Length
		p.WarmRanges++
	}
	return p.checkWarm(ctx, d, ends)
}

// checkWarm looks whether the ranges can be read.
func (p *Plan) checkWarm(ctx context.Context, d Deps, ends map[pipeline.BlobID]int64) error {
	var ids []pipeline.BlobID
	for id := range ends {
		ids = append(ids, id)
	}
	return parallel(ctx, ids, func(ctx context.Context, id pipeline.BlobID) error {
		if _, err := d.Blobs.ReadRange(ctx, id, ends[id]-1, 1); err != nil {
			return fmt.Errorf("windows that were open have to be computed again: %w: nothing was changed; --skip-windows goes on without them, and their rows up to the last checkpoint will be missing in the windows tables", err)
		}
		return nil
	})
}
