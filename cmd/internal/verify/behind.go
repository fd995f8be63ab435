package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/millrace/millrace/cmd/internal/ask"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/decode"
	"github.com/millrace/millrace/pipeline/shard"
)

// entries compares the quarantine with what the bytes give no row for, where the
// counts differ.
func (c *comparison) entries(ctx context.Context) error {
	want := map[pipeline.BatchID]int64{}
	for _, x := range c.stretches {
		want[x.batch] += x.quarantined
	}
	for i, x := range c.stretches {
		if x.hole || c.slice.entries[cell{x.batch, c.place}] == want[x.batch] {
			continue
		}
		if some, _ := c.gone.within("quarantine", c.slice.lowest, c.slice.highest); some != nil {
			continue // the counts told it
		}
		text, err := c.Blobs.Range(ctx, c.source.id, x.offset, x.length)
		if err != nil {
			return c.unreadable(ctx, x, err)
		}
		if err := c.examineEntries(ctx, c.stretches[i], text); err != nil {
			return err
		}
	}
	return nil
}

// entryKey tells entries of one commit apart.
type entryKey struct {
	scope   string
	offset  int64
	ordinal uint32
}

func (c *comparison) examineEntries(ctx context.Context, x stretch, text []byte) error {
	have := map[entryKey]int{}
	var surplus []removal
	sql := fmt.Sprintf("SELECT toString(scope), record_offset, ordinal, _part, _part_offset FROM quarantine WHERE %s AND %s AND batch_id = %d AND record_offset >= %d AND record_offset < %d ORDER BY _part, _part_offset",
		timeBetween("time", c.slice.lowest, c.slice.highest), c.place.where(), uint64(x.batch), x.offset, x.end())
	err := c.each(ctx, "quarantine", sql, func(row ask.Row) error {
		var k entryKey
		var offset uint64
		r := removal{table: "quarantine"}
		err := row.Scan(&k.scope, &offset, &k.ordinal, &r.part, &r.nth)
		k.offset = int64(offset)
		if have[k]++; have[k] > 1 {
			surplus = append(surplus, r)
		}
		return err
	})
	if err != nil {
		return err
	}
	rec, result := c.decoded(x, text)
	if rec != nil {
		rec.Release()
	}
	base := Finding{Table: "quarantine", Blob: c.place.blob, Generation: c.place.generation, Offset: x.offset, Length: x.length, Batch: uint64(x.batch), Repairable: true}
	if f := base; len(surplus) > 0 {
		f.Kind, f.Count, f.Todo = SurplusQuarantine, int64(len(surplus)), todoRemove
		c.found = append(c.found, f)
		c.plan.remove = append(c.plan.remove, surplus...)
	}
	lost := x.quarantined - int64(len(have))
	if lost <= 0 {
		return nil
	}
	rejects := missingRejects(x, text, result, have)
	if int64(len(rejects)) > lost {
		rejects = rejects[:lost]
	}
	f := base
	f.Kind, f.Count, f.Todo = MissingQuarantine, lost, todoRepair
	for _, r := range rejects {
		if len(f.Addresses) < maxAddresses {
			f.Addresses = append(f.Addresses, c.place.address(r.Offset, int64(r.Ordinal)))
		}
	}
	if int64(len(rejects)) < lost {
		f.Detail = fmt.Sprintf("this program's decoder refuses %d of them no more", lost-int64(len(rejects)))
	}
	c.found = append(c.found, f)
	if len(rejects) > 0 {
		c.plan.entries = append(c.plan.entries, entryLanding{c.source.id, c.place, x, rejects})
	}
	return nil
}

// missingRejects gives what the decoder refuses and the quarantine does not have. A
// range that could not be cut into records is refused as a whole.
func missingRejects(x stretch, text []byte, result decode.Result, have map[entryKey]int) []pipeline.Reject {
	if x.rows == 0 && x.quarantined == 1 && len(have) == 0 && (result.Rows > 0 || len(result.Rejects) != 1) {
		const excerpt = 256
		return []pipeline.Reject{{
			Reason: pipeline.ReasonSyntax, Detail: "bytes that cannot be cut into records", Scope: "range", Offset: x.offset, Length: x.length,
			Excerpt: strings.ToValidUTF8(string(text[:min(len(text), excerpt)]), string(utf8.RuneError)),
		}}
	}
	var out []pipeline.Reject
	for _, r := range result.Rejects {
		if have[entryKey{r.Scope, r.Offset, r.Ordinal}] == 0 {
			out = append(out, r)
		}
	}
	return out
}

// room is memory without a limit: chunks come one after the other, and each is
// dropped before the next one.
type room struct{}

func (room) Acquire(ctx context.Context, _ int64) error { return ctx.Err() }
func (room) Release(int64)                              {}

// behind looks at what stands in the blob behind its last commit.
func (c *comparison) behind(ctx context.Context) error {
	end := endOf(c.stretches)
	pos := blob.Position{Generation: c.place.generation, End: end, Tail: c.tail}
	if end > 0 && c.source.listed && c.source.size <= end+2 {
		return nil // the footer alone
	}
	var bytes, tuples int64
	outcome, err := c.Reader.ReadNew(ctx, c.source.id, pos, -1, room{}, func(chunk blob.Chunk) error {
		n, left, err := c.chunk(ctx, chunk)
		bytes, tuples = bytes+left, tuples+n
		return err
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, new(*blob.FormatError)):
		return c.unread(end, max(c.source.size-end, 0), 0, err.Error())
	case err != nil:
		c.notes = append(c.notes, err.Error())
		return nil
	case outcome == blob.Rewritten:
		c.rewritten(stretch{unit: unit{offset: end}}, "what stands before the last commit's end is not what was read")
		return nil
	case outcome == blob.Gone:
		if end > 0 {
			c.expire(BySource, "", 0)
		}
		return nil
	}
	if bytes == 0 {
		return nil
	}
	return c.unread(end, bytes, tuples, "")
}

// chunk compares new bytes with rows that may be of a commit that nobody knows any
// more. It gives what is left: tuples and bytes that are not in the table.
func (c *comparison) chunk(ctx context.Context, chunk blob.Chunk) (tuples, left int64, err error) {
	c.read += int64(len(chunk.Data))
	x := stretch{unit: unit{offset: chunk.Offset, length: int64(len(chunk.Data))}, hole: true}
	rec, result := c.decoded(x, chunk.Data)
	if rec == nil {
		return int64(len(result.Rejects)), x.length, nil
	}
	defer rec.Release()
	want := map[tupleAt]*wanted{}
	c.want(x, rec, want)
	have, err := c.held(ctx, fmt.Sprintf("%s AND %s AND record_offset >= %d AND record_offset < %d", c.slice.flows(), c.place.where(), x.offset, x.end()))
	if err != nil {
		return 0, 0, err
	}
	for at, list := range have { // what strangers wrote says nothing of what was read
		if have[at] = slices.DeleteFunc(list, func(r held) bool { return c.books.standing(r.batch) == stranger }); len(have[at]) == 0 {
			delete(have, at)
		}
	}
	if len(have) == 0 {
		return int64(len(want) + len(result.Rejects)), x.length, nil
	}
	for _, list := range have {
		if c.books.standing(list[0].batch) == pending {
			c.waiting += x.length
			return 0, 0, nil
		}
	}
	e := &examination{comparison: c, x: x, text: chunk.Data, rec: rec, want: want, unknown: map[pipeline.BatchID][]held{}}
	for at, list := range have {
		e.judge(at, list)
	}
	return 0, 0, e.finish(ctx, have)
}

// unread enters bytes that nobody read, unless somebody may still do it.
func (c *comparison) unread(offset, length, tuples int64, detail string) error {
	now := c.Now()
	hour, timed := c.source.id.Hour()
	outside := ""
	if timed {
		outside = shard.Outside(hour, c.live.Start, now, c.KeepOffsets)
	}
	switch {
	case timed && hour.Add(2*time.Hour).After(now), outside == "" && c.awaited(hour):
		c.waiting += length
		return nil
	case outside == shard.IgnoredBeforeStart && offset == 0:
		c.notes = append(c.notes, "blobs of hours before the pipeline's start were never read: millrace backfill lands them")
		return nil
	}
	f := Finding{
		Kind: Unread, Table: "flows", Blob: c.place.blob, Generation: c.place.generation, Offset: offset, Length: length, Count: length,
		Detail: fmt.Sprintf("%d tuples", tuples), Todo: todoBackfill,
	}
	if detail != "" {
		f.Detail = detail
	}
	if outside == "" {
		f.Todo = "start the pipeline: its sweeper reads the hour while it is not older than the age limit; later, millrace backfill"
	}
	c.found = append(c.found, f)
	return nil
}

// awaited says that the live pipeline has not come to the hour yet.
func (c *comparison) awaited(hour time.Time) bool {
	for _, a := range c.books.accounts {
		if a.role == RolePipeline && len(a.shards) > 0 {
			mark := a.shards[pipeline.ShardOf(c.source.id.Stream(), len(a.shards))].watermark
			return int64(mark) < hour.Add(time.Hour).UnixMilli()
		}
	}
	return false
}
