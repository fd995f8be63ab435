package verify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/cmd/internal/ask"
	"github.com/millrace/millrace/cmd/internal/reread"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/decode"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/pipeline/source/listing"
)

// Limits of the full level.
const (
	readers  = 4       // blobs read at a time
	runBytes = 8 << 20 // read with one request, unless one byte range has more
)

// listed compares hour by hour, with the blobs that the store lists.
func (v *verifier) listed(ctx context.Context) error {
	next, hourless := v.From, false
	upTo := func(hour time.Time) error {
		for ; next.Before(hour); next = next.Add(time.Hour) {
			if err := v.full(ctx, next, nil); err != nil {
				return err
			}
		}
		return nil
	}
	period := &listing.Period{Containers: v.Containers, From: v.From, To: v.To, Hourless: v.Hourless, Log: v.Logger}
	err := period.Walk(ctx, v.Lister, func(ctx context.Context, hour time.Time, blobs []listing.Blob) error {
		if hour.IsZero() {
			hourless = true
			return v.full(ctx, hour, blobs)
		}
		if err := upTo(hour); err != nil {
			return err
		}
		next = hour.Add(time.Hour)
		return v.full(ctx, hour, blobs)
	})
	if err != nil {
		return err
	}
	if err := upTo(v.To); err != nil || hourless {
		return err
	}
	return v.full(ctx, time.Time{}, nil)
}

// full compares the blobs of one hour with their bytes.
func (v *verifier) full(ctx context.Context, hour time.Time, blobs []listing.Blob) error {
	s := v.newSlice(hour)
	if err := v.load(ctx, s); err != nil {
		return err
	}
	if err := v.judge(ctx, s); err != nil {
		return err
	}
	sums, err := v.sums(ctx, s)
	if err != nil {
		return err
	}
	work := map[string]*source{}
	for _, b := range blobs {
		work[b.ID.String()] = &source{id: b.ID, size: b.Size, listed: true}
	}
	for p := range s.units {
		if work[p.blob] == nil {
			id, err := pipeline.ParseBlobID(p.blob)
			if err != nil {
				return err
			}
			work[p.blob] = &source{id: id}
		}
	}
	var mu sync.Mutex
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for _, name := range slices.Sorted(maps.Keys(work)) {
		c := &comparison{verifier: v, slice: s, source: work[name], sums: sums, batch: decode.NewBatch(v.Allocator)}
		group.Go(func() error {
			defer c.batch.Release()
			if err := c.run(gctx); err != nil {
				return fmt.Errorf("blob %q: %w", c.source.id, err)
			}
			mu.Lock()
			defer mu.Unlock()
			c.merge()
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := v.nobodys(ctx, s, work); err != nil {
		return err
	}
	v.finish(s)
	return nil
}

// nobodys judges rows of blobs that were not compared, as the store has none of the
// name, and no commit read it. Where the commit is known otherwise, it did not read
// them. Rows of an unregistered ledger go with their ledger.
func (v *verifier) nobodys(ctx context.Context, s *slice, work map[string]*source) error {
	for p, list := range s.found {
		for i := range list {
			f := &list[i]
			id := pipeline.BatchID(f.Batch)
			if f.Kind == ForeignRows && v.books.standing(id) == stranger && v.repairs != nil {
				v.repairs.strange = append(v.repairs.strange, strange{f.Table, id})
			}
			if f.Kind != UnknownCommit || s.compared[p] || work[p.blob] != nil && len(s.units[p]) > 0 {
				continue
			}
			var known uint64
			err := v.each(ctx, "batches", fmt.Sprintf("SELECT count() FROM batches WHERE batch_id = %d", f.Batch), func(row ask.Row) error { return row.Scan(&known) })
			if err != nil {
				return err
			}
			if f.Repairable = known > 0; known == 0 {
				f.Todo = todoLook
				continue
			}
			f.Kind, f.Todo, f.Detail = ForeignRows, todoRemove, "their commit did not read this blob, and the blob is not there"
			if err := v.noteForeign(ctx, cell{id, p}); err != nil {
				return err
			}
		}
	}
	return nil
}

// noteForeign plans that the rows go, and tells the windows that they do not count.
func (v *verifier) noteForeign(ctx context.Context, c cell) error {
	if v.repairs != nil {
		v.repairs.foreign = append(v.repairs.foreign, c)
	}
	sql := fmt.Sprintf("SELECT toUnixTimestamp64Milli(time), %s FROM flows WHERE %s LIMIT %d", valuesSQL, c.where(), maxChanged+1)
	return v.each(ctx, "flows", sql, func(row ask.Row) error {
		r := changed{batch: c.batch, sign: -1}
		err := row.Scan(&r.time, &r.values)
		if len(v.changed) >= maxChanged {
			v.knowsChanged = false
			return err
		}
		v.changed = append(v.changed, r)
		return err
	})
}

// sums adds up the rows of each blob. What is pending or expired is left out.
func (v *verifier) sums(ctx context.Context, s *slice) (map[place]sum, error) {
	out := map[place]sum{}
	sql := fmt.Sprintf("SELECT toString(blob), generation, count(), sum(%s) FROM flows WHERE %s AND %s AND %s GROUP BY blob, generation",
		hashSQL, s.flows(), v.books.settled(), v.gone.alive("flows", "time"))
	err := v.each(ctx, "flows", sql, func(row ask.Row) error {
		var p place
		var n, h uint64
		err := row.Scan(&p.blob, &p.generation, &n, &h)
		out[p] = sum{int64(n), h}
		return err
	})
	return out, err
}

// source is one blob.
type source struct {
	id     pipeline.BlobID
	size   int64
	listed bool // it was there a moment ago
}

// comparison is that of one blob. What it finds it keeps until merge.
type comparison struct {
	*verifier
	slice  *slice
	source *source
	sums   map[place]sum
	batch  *decode.Batch

	place     place // of the newest generation
	stretches []stretch
	legit     map[pipeline.BatchID][]unit // commits within others: replays
	tail      []byte                      // last bytes that were read

	exact    bool // the bytes were compared: what counts found is told better here
	found    []Finding
	expired  []Expired
	rows     []changed
	read     int64
	written  int64
	waiting  int64 // bytes that are pending
	plan     plan
	overflow bool // rows has no room
	notes    []string
}

// merge enters what was found. One at a time.
func (c *comparison) merge() {
	v, s := c.verifier, c.slice
	if c.exact {
		s.compared[c.place] = true
		var kept []Finding
		for _, f := range s.found[c.place] {
			if f.Kind == ForeignRows && v.books.standing(pipeline.BatchID(f.Batch)) == stranger || f.Kind == Overlap {
				kept = append(kept, f)
			}
		}
		s.found[c.place] = kept
	} else if len(s.found[c.place]) > 0 {
		v.knowsChanged = false
		for i := range s.found[c.place] {
			f := &s.found[c.place][i]
			f.Repairable, f.Todo = false, todoLook
		}
	}
	for _, f := range c.found {
		s.enter(c.place, f)
	}
	for _, e := range c.expired {
		v.result.expire(e)
	}
	for _, n := range c.notes {
		v.result.note(n)
	}
	if len(v.changed)+len(c.rows) > maxChanged || c.overflow {
		v.knowsChanged = false
	} else {
		v.changed = append(v.changed, c.rows...)
	}
	v.result.BytesRead += c.read
	v.result.Written += c.written
	v.result.Pending.Bytes += c.waiting
	if v.repairs != nil {
		v.repairs.merge(c.plan)
	}
	v.progress.Blobs++
	v.progress.Bytes += c.read
	v.tell()
}

// run compares the blob: its commits range by range, then what is behind them.
func (c *comparison) run(ctx context.Context) error {
	c.newest()
	units := c.slice.units[c.place]
	var nested, overlaps []unit
	c.stretches, nested, overlaps = cover(units, func(u unit) bool { return c.books.replays(u.batch) })
	c.legit = map[pipeline.BatchID][]unit{}
	for _, u := range append(nested, overlaps...) {
		c.legit[u.batch] = append(c.legit[u.batch], u)
	}
	if some, all := c.gone.within("flows", c.slice.lowest, c.slice.highest); all && len(units) > 0 {
		c.expire(some.why, some.detail, 0) // the counts told how many rows
		return nil
	}
	sums, ok, err := c.bytes(ctx)
	if err != nil || !ok {
		return err
	}
	c.exact = true
	if err := c.judgeSums(ctx, sums); err != nil {
		return err
	}
	if err := c.entries(ctx); err != nil {
		return err
	}
	return c.behind(ctx)
}

// newest finds the blob's newest generation; rows of the ones before it have no bytes.
func (c *comparison) newest() {
	c.place = place{blob: c.source.id.String()}
	generations := c.slice.generations[c.place.blob]
	for _, g := range generations {
		c.place.generation = max(c.place.generation, g)
	}
	for _, g := range generations {
		if older := (place{c.place.blob, g}); older != c.place {
			c.expire(ByRewrite, "", c.slice.committed(older))
		}
	}
}

func (c *comparison) expire(why Why, detail string, rows int64) {
	c.expired = append(c.expired, Expired{Why: why, Table: "flows", Rows: rows, Blobs: 1, Example: c.place.blob, Detail: detail})
}

// bytes reads the stretches and adds up what they decode to. ok is false when they
// cannot be compared, which was entered.
func (c *comparison) bytes(ctx context.Context) (sums []sum, ok bool, err error) {
	sums = make([]sum, len(c.stretches))
	for i := 0; i < len(c.stretches); {
		n := runOf(c.stretches[i:])
		first, last := c.stretches[i], c.stretches[i+n-1]
		data, err := c.Blobs.Range(ctx, c.source.id, first.offset, last.end()-first.offset)
		if err != nil {
			return nil, false, c.unreadable(ctx, first, err)
		}
		c.read += int64(len(data))
		for k := range n {
			x := c.stretches[i+k]
			text := data[x.offset-first.offset:][:x.length]
			if !x.hole && pipeline.Hash(text) != x.hash {
				c.rewritten(x, "the bytes are not those that were committed: their xxh3-128 differs")
				return nil, false, nil
			}
			if sums[i+k], err = c.decodeSum(x, text); err != nil {
				return nil, false, err
			}
		}
		c.tail = data[max(0, len(data)-16):]
		i += n
	}
	return sums, true, nil
}

// runOf says how many stretches one request reads.
func runOf(stretches []stretch) int {
	n := 1
	for n < len(stretches) && stretches[n].offset == stretches[n-1].end() && stretches[n].end()-stretches[0].offset <= runBytes {
		n++
	}
	return n
}

// unreadable says why the bytes cannot be compared.
func (c *comparison) unreadable(ctx context.Context, x stretch, err error) error {
	rows := c.slice.committed(c.place)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, reread.ErrGone):
		c.expire(BySource, "", rows)
	case errors.Is(err, reread.ErrExpired):
		c.rewritten(x, "the blob is shorter now")
	default:
		c.expire(Unreadable, "", rows)
		c.notes = append(c.notes, err.Error())
	}
	return nil
}

func (c *comparison) rewritten(x stretch, detail string) {
	c.found = append(c.found, Finding{
		Kind: Rewritten, Table: "batches", Blob: c.place.blob, Generation: c.place.generation, Offset: x.offset, Length: x.length, Batch: uint64(x.batch), Count: x.length,
		Detail: detail, Todo: "nothing landed is changed by it: find out who wrote the blob; the rows are what was read then",
	})
}

// at says how the bytes of a stretch are decoded. A blob without an hour in its name
// had bounds that nobody recorded; what they refused is in quarantine.
func (c *comparison) at(x stretch) decode.Range {
	r := engine.RangeOf(pipeline.Replay{Blob: c.source.id, Generation: c.place.generation, Offset: x.offset, Length: x.length})
	if _, ok := c.source.id.Hour(); !ok {
		r.MinTime, r.MaxTime = 0, 0
	}
	return r
}

// decoded gives the rows of a stretch, nil when there are none. The caller releases
// them.
func (c *comparison) decoded(x stretch, text []byte) (arrow.Record, decode.Result) {
	c.batch.Release()
	result := c.batch.Decode(c.at(x), text)
	return c.batch.Take(x.batch), result
}

// decodeSum adds up the rows of a stretch that should be in the table.
func (c *comparison) decodeSum(x stretch, text []byte) (sum, error) {
	rec, result := c.decoded(x, text)
	c.written += int64(result.Rows + len(result.Rejects))
	if rec == nil {
		return sum{}, nil
	}
	defer rec.Release()
	kept, err := c.filtered(x, rec)
	if err != nil {
		return sum{}, err
	}
	var s sum
	h := newRowHasher(rec)
	for row := range int(rec.NumRows()) {
		if kept != nil && !kept[row] || c.gone.at("flows", int64(h.times[row])) != nil {
			continue
		}
		s.add(sum{1, h.hash(row)})
	}
	return s, nil
}
