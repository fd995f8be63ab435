package rebuild

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/operators/window"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/schemas"
)

// Blobs reads byte ranges; pipeline/blob implements it.
type Blobs interface {
	ReadRange(ctx context.Context, id pipeline.BlobID, offset, length int64) ([]byte, error)
}

// Deps are what a rebuilding works on.
type Deps struct {
	Target  Target
	Blobs   Blobs
	Windows []window.Config
	// Start gives the earliest hour of a pipeline whose ledger was made at the time.
	Start func(created time.Time) (time.Time, error)
	// Keep is how long offsets are kept behind their blob's hour.
	Keep time.Duration
	Now  time.Time
}

// Limits.
const (
	// margin of sequence numbers above the highest that was seen: batches whose intent
	// was durable, and of which nothing had landed.
	margin = 1000
	// tailAge is how old a blob may be that still grows: of younger ones the last bytes
	// are kept, by which the next read sees that the blob is the same.
	tailAge  = 3 * time.Hour
	tailSize = 16
	readers  = 16
)

// Plan is what a rebuilding does.
type Plan struct {
	Ledger Registered
	Epoch  uint64
	Tables []string
	// Back are rows to take back, by table.
	Back      map[string]int64
	Positions int
	// WarmBytes and WarmRanges are read again for the windows that were open.
	WarmBytes  int64
	WarmRanges int

	back     []span
	restored ledger.Restored
}

// Choose finds the ledger: the one with the id, or for id 0 the only one that there
// is, or that ever came to a checkpoint.
func Choose(ctx context.Context, t Target, id uint16) (Registered, error) {
	all, err := registered(ctx, t)
	if err != nil {
		return Registered{}, err
	}
	var found []Registered
	list := ""
	for _, r := range all {
		if r.ID == id || id == 0 && (r.Ranges > 0 || len(all) == 1) {
			found = append(found, r)
		}
		list += fmt.Sprintf("\n  --ledger %d: made %s, %d shards, %d byte ranges", r.ID, time.UnixMilli(r.Created).UTC().Format(time.RFC3339), r.Shards, r.Ranges)
		if r.Ranges > 0 {
			list += ", the last one of " + time.UnixMilli(r.Last).UTC().Format(time.RFC3339)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(all) == 0:
		return Registered{}, errors.New("the target knows no ledger: start the pipeline, it makes one")
	case id != 0:
		return Registered{}, fmt.Errorf("the target knows no ledger %d, but:%s", id, list)
	}
	return Registered{}, fmt.Errorf("which ledger? Several have written to the target (a replay of quarantine and a backfill have ledgers of their own):%s", list)
}

// Look makes a plan. It changes nothing.
//
// Errors: a blob behind rows to be taken back is gone; the table batches has gaps.
func Look(ctx context.Context, d Deps, r Registered) (*Plan, error) {
	p := &Plan{Ledger: r, Back: map[string]int64{}}
	wrap := func(err error) (*Plan, error) {
		return nil, fmt.Errorf("rebuild ledger %d (%s): %w", r.ID, r.Name, err)
	}
	var err error
	if p.Tables, err = rowTables(ctx, d.Target); err != nil {
		return wrap(err)
	}
	if err := p.readEpoch(ctx, d); err != nil {
		return wrap(err)
	}
	checkpoints, err := p.readSequences(ctx, d)
	if err != nil {
		return wrap(err)
	}
	if err := p.countBack(ctx, d); err != nil {
		return wrap(err)
	}
	if err := p.readInfo(ctx, d); err != nil {
		return wrap(err)
	}
	if err := p.readPositions(ctx, d); err != nil {
		return wrap(err)
	}
	if err := p.readStreams(ctx, d, checkpoints); err != nil {
		return wrap(err)
	}
	if err := p.readWindows(ctx, d, checkpoints); err != nil {
		return wrap(err)
	}
	return p, nil
}

// readEpoch finds an epoch above that of every owner so far. The low 20 bits are the
// cores' own.
func (p *Plan) readEpoch(ctx context.Context, d Deps) error {
	type row struct{ Epoch uint64 }
	found, err := ask[row](ctx, d.Target, fmt.Sprintf("SELECT max(epoch) AS Epoch FROM fence WHERE ledger = %d", p.Ledger.ID))
	if err != nil || len(found) != 1 {
		return errors.Join(err, fmt.Errorf("read the table fence: %d answers", len(found)))
	}
	p.Epoch = found[0].Epoch>>20 + 1
	return nil
}

// readSequences finds, for each shard, the batches behind the last checkpoint, and
// the sequence number to go on at.
func (p *Plan) readSequences(ctx context.Context, d Deps) (checkpoints []span, err error) {
	// Shards of an earlier number of shards have written too, and are done.
	done, seen := map[int]uint64{}, map[int]uint64{}
	marks, err := highest(ctx, d.Target, schemas.Batches.Name, p.Ledger.ID)
	if err != nil {
		return nil, err
	}
	for _, m := range marks {
		done[m.Shard] = m.Seq
		seen[m.Shard] = max(seen[m.Shard], m.Seq)
	}
	for _, table := range p.Tables {
		found, err := highest(ctx, d.Target, table, p.Ledger.ID)
		if err != nil {
			return nil, err
		}
		for _, m := range found {
			seen[m.Shard] = max(seen[m.Shard], m.Seq)
		}
	}
	p.restored.Shards = make([]ledger.State, p.Ledger.Shards)
	for shard := range p.Ledger.Shards {
		checkpoint := max(done[shard], p.Ledger.Resharded)
		p.restored.Shards[shard].Base = ledger.Base{Shard: shard, Seq: max(seen[shard], checkpoint) + margin}
		checkpoints = append(checkpoints, span{p.Ledger.ID, shard, p.Ledger.Resharded, checkpoint})
		p.back = append(p.back, span{p.Ledger.ID, shard, checkpoint, pipeline.MaxSeq})
	}
	return checkpoints, nil
}

// countBack counts the rows to take back, and looks whether they can be read again.
func (p *Plan) countBack(ctx context.Context, d Deps) error {
	type count struct{ N int64 }
	for _, table := range p.Tables {
		found, err := ask[count](ctx, d.Target, fmt.Sprintf("SELECT count() AS N FROM %s WHERE %s", schemas.QuoteName(table), either(p.back)))
		if err != nil {
			return err
		}
		if n := found[0].N; n > 0 {
			p.Back[table] = n
		}
	}
	type last struct {
		Blob   string
		Offset int64
	}
	var lasts []last
	for _, c := range []struct{ table, offset string }{{schemas.Flows.Name, "record_offset"}, {schemas.Quarantine.Name, "record_offset"}} {
		if p.Back[c.table] == 0 {
			continue
		}
		found, err := ask[last](ctx, d.Target, fmt.Sprintf("SELECT blob AS Blob, max(%s) AS Offset FROM %s WHERE %s GROUP BY blob", c.offset, c.table, either(p.back)))
		if err != nil {
			return err
		}
		lasts = append(lasts, found...)
	}
	return parallel(ctx, lasts, func(ctx context.Context, l last) error {
		id, err := pipeline.ParseBlobID(l.Blob)
		if err != nil {
			return err
		}
		if _, err = d.Blobs.ReadRange(ctx, id, l.Offset, 1); errors.Is(err, fs.ErrNotExist) || errors.Is(err, blob.ErrShort) {
			return fmt.Errorf("rows behind the last checkpoint have to be taken back and read again, but their blob is gone: %w: nothing was changed; restore the ledger from a copy, or begin a new one in another database", err)
		}
		return err
	})
}

// parallel calls f for all, some at a time.
func parallel[T any](ctx context.Context, all []T, f func(context.Context, T) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for _, v := range all {
		group.Go(func() error { return f(ctx, v) })
	}
	return group.Wait()
}

// readInfo says again what the ledger is.
func (p *Plan) readInfo(ctx context.Context, d Deps) error {
	created := time.UnixMilli(p.Ledger.Created).UTC()
	start, err := d.Start(created)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	p.restored.Epoch = p.Epoch
	p.restored.Info = ledger.Info{Name: p.Ledger.Name, ID: p.Ledger.ID, Shards: p.Ledger.Shards, Created: created, Start: start}
	return ctx.Err()
}

// readPositions finds how far each blob has landed.
func (p *Plan) readPositions(ctx context.Context, d Deps) error {
	type row struct {
		Blob       string
		Generation uint32
		First, End int64
		Bytes      int64
		Touched    int64
	}
	found, err := ask[row](ctx, d.Target, fmt.Sprintf(`SELECT blob AS Blob, generation AS Generation, min(offset) AS First, max(offset + length) AS End, sum(length) AS Bytes, toUnixTimestamp64Milli(max(committed)) AS Touched
FROM batches FINAL WHERE %s GROUP BY blob, generation ORDER BY blob, generation`, whole(p.Ledger.ID)))
	if err != nil {
		return fmt.Errorf("read the table batches: %w", err)
	}
	positions := map[pipeline.BlobID]*ledger.Position{}
	var recent []*ledger.Position
	for _, r := range found {
		id, err := pipeline.ParseBlobID(r.Blob)
		if err != nil {
			return err
		}
		hour, ok := id.Hour()
		if ok && hour.Before(d.Now.Add(-d.Keep-2*time.Hour)) {
			continue
		}
		if r.First+r.Bytes != r.End {
			return fmt.Errorf("the table batches has %d bytes of blob %q between bytes %d and %d: ranges are missing or twice in it: restore the ledger from a copy, or the rows of batches from a backup", r.Bytes, r.Blob, r.First, r.End)
		}
		if ok && hour.Before(p.restored.Info.Start) {
			p.restored.Info.Start = hour // it was read, so it is no earlier than the start
		}
		positions[id] = &ledger.Position{Blob: id, Generation: r.Generation, End: r.End, Touched: r.Touched}
	}
	for _, pos := range positions {
		if hour, ok := pos.Blob.Hour(); !ok || hour.After(d.Now.Add(-tailAge)) {
			recent = append(recent, pos)
		}
	}
	if err := parallel(ctx, recent, func(ctx context.Context, pos *ledger.Position) error { return readTail(ctx, d.Blobs, pos) }); err != nil {
		return err
	}
	p.Positions = len(positions)
	for id, pos := range positions {
		base := &p.restored.Shards[pipeline.ShardOf(id.Stream(), p.Ledger.Shards)].Base
		base.Positions = append(base.Positions, *pos)
	}
	return nil
}

// readTail keeps the bytes before the position. A blob that is gone, or was
// rewritten, is for the next read to find.
func readTail(ctx context.Context, blobs Blobs, pos *ledger.Position) error {
	size := min(tailSize, pos.End)
	tail, err := blobs.ReadRange(ctx, pos.Blob, pos.End-size, size)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, blob.ErrShort) {
		return nil
	}
	pos.Tail = hex.EncodeToString(tail)
	return err
}

// readStreams finds how far the event time of each stream has come.
func (p *Plan) readStreams(ctx context.Context, d Deps, checkpoints []span) error {
	type row struct {
		Blob string
		Time int64
	}
	found, err := ask[row](ctx, d.Target, fmt.Sprintf("SELECT blob AS Blob, toUnixTimestamp64Milli(max(time)) AS Time FROM flows WHERE time > fromUnixTimestamp64Milli(toInt64(%d)) AND %s GROUP BY blob",
		d.Now.Add(-tailAge).UnixMilli(), either(checkpoints)))
	if err != nil {
		return fmt.Errorf("read the table flows: %w", err)
	}
	times := map[string]int64{}
	for _, r := range found {
		id, err := pipeline.ParseBlobID(r.Blob)
		if err != nil {
			return err
		}
		times[id.Stream()] = max(times[id.Stream()], min(r.Time, d.Now.UnixMilli()))
	}
	for stream, at := range times {
		base := &p.restored.Shards[pipeline.ShardOf(stream, p.Ledger.Shards)].Base
		base.Streams = append(base.Streams, ledger.StreamTime{Stream: stream, MaxTime: at})
	}
	return nil
}
