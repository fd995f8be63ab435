package window

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/mutant"
	"github.com/millrace/millrace/schemas"
)

// Operator is a list of windows over one shard. It implements pipeline.Operator.
type Operator struct {
	alloc     memory.Allocator
	seed      uint64 // of the hash tables
	windows   []*windows
	sources   []*source // of every column that some window reads
	names     *texts    // of all columns of open text
	watermark pipeline.Watermark
}

var _ pipeline.Operator = (*Operator)(nil)

// New makes an operator with empty state. alloc gives the memory of the pieces; nil
// is Arrow's default.
//
// Errors: every fault of cfg, as Validate reports them.
func New(cfg []Config, alloc memory.Allocator) (*Operator, error) {
	if err := Validate(cfg); err != nil {
		return nil, fmt.Errorf("make windows: %w", err)
	}
	if alloc == nil {
		alloc = memory.DefaultAllocator
	}
	// The seed shows in no result: see groups.
	return newSeeded(cfg, alloc, rand.Uint64()), nil
}

func newSeeded(cfg []Config, alloc memory.Allocator, seed uint64) *Operator {
	o := &Operator{alloc: alloc, seed: seed}
	o.clear(cfg)
	return o
}

// clear sets the empty state.
func (o *Operator) clear(cfg []Config) {
	o.windows, o.sources, o.names, o.watermark = nil, nil, newTexts(), 0
	for _, c := range cfg {
		o.windows = append(o.windows, newWindows(c, o.source, newSecret(o.seed)))
	}
}

// source gives the source of a column of flows, one for all windows.
func (o *Operator) source(name string) *source {
	column := schemas.EnrichedFlows.Index(name)
	for _, s := range o.sources {
		if s.column == column {
			return s
		}
	}
	s := &source{column: column, kind: kindOf(schemas.EnrichedFlows.Columns[column].Arrow)}
	if s.kind == kindWord {
		s.texts, s.words = newTexts(), new([256]uint8)
	} else if s.kind == kindName {
		s.texts = o.names
	}
	o.sources = append(o.sources, s)
	return s
}

// Tables are what Apply writes, in the order of the configuration.
func (o *Operator) Tables() []schemas.Table {
	tables := make([]schemas.Table, len(o.windows))
	for i, w := range o.windows {
		tables[i] = w.table
	}
	return tables
}

// Views are the reading views of the tables.
func (o *Operator) Views() []schemas.View {
	views := make([]schemas.View, len(o.windows))
	for i, w := range o.windows {
		views[i] = w.cfg.View()
	}
	return views
}

// Apply folds the batch into the windows, with the watermark before it deciding
// which rows are late; then the batch's watermark closes windows. A batch may
// carry no rows.
//
// Shape: one piece for each table and UTC day of window_start that has rows, in the
// order of the configuration, then of the days; rows sorted for window_start, the
// group columns, overflow; never more than 500,000.
// Errors: a record batch of another schema, or with nulls; the state is undefined
// after it. A watermark that goes back is a broken invariant.
func (o *Operator) Apply(in pipeline.OperatorInput) ([]pipeline.Piece, error) {
	if in.Watermark < o.watermark {
		panic(fmt.Sprintf("BUG: watermark went back from %d to %d in batch %v", o.watermark, in.Watermark, in.Batch))
	}
	if mutant.On(mutant.WatermarkFirst) {
		o.watermark = in.Watermark
	}
	for i, rec := range in.Flows {
		if err := o.fold(rec); err != nil {
			return nil, fmt.Errorf("fold batch %v: record batch %d: %w", in.Batch, i, err)
		}
	}
	o.watermark = in.Watermark
	var pieces []pipeline.Piece
	for _, w := range o.windows {
		pieces = append(pieces, w.close(o.watermark, in.Batch, o.alloc)...)
		w.measure()
	}
	o.sweep()
	return pieces, nil
}

// chunkRows is how many rows are prepared at a time: keys, tags and hashes of a
// chunk stay in the first-level cache.
const chunkRows = 512

func (o *Operator) fold(rec arrow.Record) error {
	if schema := rec.Schema(); !schema.Equal(flowsSchema) && !schema.Equal(enrichedSchema) {
		return fmt.Errorf("schema %v, want that of %s", schema, schemas.Flows.Name)
	}
	for _, s := range o.sources {
		if s.column >= int(rec.NumCols()) {
			return fmt.Errorf("column %q is not there: it comes with enrichment", schemas.EnrichedFlows.Columns[s.column].Name)
		}
	}
	defer func() {
		for _, s := range o.sources {
			s.unbind()
		}
	}()
	for _, s := range o.sources {
		if err := s.bind(rec.Column(s.column)); err != nil {
			return fmt.Errorf("column %q: %w", rec.ColumnName(s.column), err)
		}
	}
	times := rec.Column(timeColumn).(*array.Timestamp)
	if times.NullN() != 0 {
		return fmt.Errorf("column %q: %d nulls, want none", rec.ColumnName(timeColumn), times.NullN())
	}
	rows := times.TimestampValues()
	for lo := 0; lo < len(rows); lo += chunkRows {
		hi := min(lo+chunkRows, len(rows))
		for _, s := range o.sources {
			if s.isCount {
				s.hash(lo, hi)
			}
		}
		for _, w := range o.windows {
			if err := w.fold(rows, lo, hi, o.watermark); err != nil {
				return err
			}
		}
	}
	return nil
}

// sweep forgets texts of groups that are gone. Words are closed lists and stay.
func (o *Operator) sweep() {
	if !o.names.wantsSweep() {
		return
	}
	marks := make([]bool, len(o.names.texts))
	for _, w := range o.windows {
		for _, f := range w.fields {
			if f.kind != kindName {
				continue
			}
			for _, win := range w.open {
				win.mark(f, marks)
			}
		}
	}
	o.names.sweep(marks)
}

// Release frees the state.
func (o *Operator) Release() {
	for _, w := range o.windows {
		w.forget()
	}
	o.windows, o.sources, o.names = nil, nil, nil
}

// windows is one table's state.
type windows struct {
	cfg    Config
	table  schemas.Table
	schema *arrow.Schema
	size   int64 // ms
	late   int64 // allowed lateness, ms
	secret secret

	fields   []field
	keys     []*source // by field
	words    int
	masks    []uint64 // bits of each key word that belong to a field
	sums     []*source
	distinct []*source

	open   map[int64]*window // by start
	recent [recentWindows]*window
	groups int // of all open windows, overflow groups not counted
	bytes  int // of these, likewise
	spare  []*groups

	stats       Stats
	instruments *instruments // nil without Instrument
	measured    Stats        // what the instruments know

	keyWords []uint64 // of a chunk
	tags     []uint32 // of a chunk
	sumsOf   [][]uint64
	ranged   []uint16 // of weigh
	places   []uint32 // likewise
}

// recentWindows is a power of two: rows of one batch rarely touch more windows.
const recentWindows = 64

// spareGroups is how many emptied tables are kept, so that windows need not grow
// again minute after minute.
const spareGroups = 2

// window is one window [start, start+size) with rows.
type window struct {
	start int64 // ms UTC
	late  bool  // it had closed before these rows came; lives for one batch
	*groups
}

func newWindows(c Config, sourceOf func(string) *source, key secret) *windows {
	if c.MaxGroups == 0 {
		c.MaxGroups = DefaultMaxGroups
	}
	if c.MaxStateMiB == 0 {
		c.MaxStateMiB = DefaultMaxStateMiB
	}
	w := &windows{
		cfg: c, table: c.Table(), size: c.Size.Milliseconds(), late: c.Lateness.Milliseconds(),
		secret: key, open: map[int64]*window{}, tags: make([]uint32, chunkRows),
	}
	w.schema = w.table.ArrowSchema()
	var columns []int
	var kinds []kind
	for _, name := range c.GroupBy {
		s := sourceOf(name)
		s.isKey = true
		w.keys = append(w.keys, s)
		columns, kinds = append(columns, s.column), append(kinds, s.kind)
	}
	w.fields, w.words = keyLayout(columns, kinds)
	w.masks = keyMasks(w.fields, w.words)
	w.keyWords = make([]uint64, chunkRows*w.words)
	for _, name := range c.Sums {
		w.sums = append(w.sums, sourceOf(name))
	}
	w.sumsOf = make([][]uint64, len(w.sums))
	for _, name := range c.Distinct {
		s := sourceOf(name)
		if !s.isCount {
			s.isCount, s.distinct = true, make([]uint64, chunkRows)
		}
		w.distinct = append(w.distinct, s)
	}
	return w
}

// closesBy says whether a window is closed at the watermark.
func (w *windows) closesBy(start int64, watermark pipeline.Watermark) bool {
	if mutant.On(mutant.LatenessIgnored) {
		return start+w.size <= int64(watermark)
	}
	return start+w.size+w.late <= int64(watermark)
}

// mark notes the ids of a text field that the window's groups use.
func (win *window) mark(f field, marks []bool) {
	for i := range win.count {
		marks[f.get(win.key(i))] = true
	}
}

func (w *windows) newGroups() *groups {
	if n := len(w.spare); n > 0 {
		g := w.spare[n-1]
		w.spare = slices.Delete(w.spare, n-1, n)
		return g
	}
	return newGroups(w.words, len(w.sums), len(w.distinct))
}

// drop forgets a window.
func (w *windows) drop(win *window) {
	delete(w.open, win.start)
	if at := w.slot(win.start); w.recent[at] == win && !mutant.On(mutant.WindowStale) {
		w.recent[at] = nil
	}
	w.groups -= win.taken()
	w.bytes -= win.bytes
	if len(w.spare) < spareGroups {
		win.groups.reset()
		w.spare = append(w.spare, win.groups)
	}
}

func (w *windows) slot(start int64) int { return int(start / w.size & (recentWindows - 1)) }
