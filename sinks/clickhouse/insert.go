package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// insertSettings go with every INSERT of a piece. Together they make one record
// batch one block, hence one part in one partition, and take away every freedom
// of the server to split or delay rows. Those of honest go along, so that a profile
// cannot drop rows either. CheckSettings asserts them at start.
var insertSettings = []string{
	"async_insert=0",       // The answer means: the part is there.
	"insert_deduplicate=0", // See the package comment: no tokens.
	"max_threads=1",
	"max_insert_threads=1",
	"input_format_parallel_parsing=0",
	"min_insert_block_size_rows=1000000000", // Gather everything …
	"min_insert_block_size_bytes=0",         // … whatever its size …
	"max_insert_block_size=1000000000",      // … into one block.
	"max_partitions_per_insert_block=1",     // A piece over two partitions would be two parts: refuse it.
	"throw_on_max_partitions_per_insert_block=1",
	"optimize_on_insert=0",
	"max_execution_time=0",
	"input_format_skip_unknown_fields=0", // A column too many or too few is an error, not a default.
	"input_format_arrow_allow_missing_columns=0",
	"input_format_null_as_default=0",
}

// newerSettings do the same on servers that have them.
var newerSettings = []string{
	"deduplicate_insert=disable", // Overrides insert_deduplicate since 26.2.
	"deduplicate_insert_select=disable",
	"max_insert_block_size_bytes=0",
	"use_strict_insert_block_limits=0",
	"input_format_max_block_size_bytes=0",
}

// land makes one INSERT of the piece; see Sink.Land.
func (s *node) land(ctx context.Context, batch pipeline.BatchID, epoch uint64, piece pipeline.Piece) error {
	wrap := func(err error) error {
		if err == nil {
			return nil
		}
		return fmt.Errorf("land batch %v in table %q, partition %q: %w", batch, piece.Table, piece.Partition, err)
	}
	t, err := s.table(piece.Table)
	if err != nil {
		return wrap(err)
	}
	if piece.Record != nil {
		t = t.Of(int(piece.Record.NumCols()))
	}
	if err := piece.Check(t); err != nil {
		return wrap(err)
	}
	if piece.Rows == 0 {
		return nil
	}
	extra, err := s.newer(ctx)
	if err != nil {
		return wrap(err)
	}
	return wrap(s.insert(ctx, t, batch, epoch, piece, extra))
}

// insert sends one fenced INSERT and says what came of it.
func (s *node) insert(ctx context.Context, t schemas.Table, batch pipeline.BatchID, epoch uint64, piece pipeline.Piece, extra []string) error {
	in := insertion{
		id: s.queryID(batch, t.Name, piece.Partition, epoch), statement: s.statement(t, batch, epoch),
		settings: slices.Concat(honest, insertSettings, extra), table: t, record: piece.Record, written: make(chan struct{}),
	}
	watched, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watcher := make(chan struct{})
	go func() {
		defer close(watcher)
		s.watch(watched, in.id, in.written, cancel)
	}()
	out, err := s.wire.insert(watched, in)
	if err == nil && out.written >= 0 && out.written < piece.Rows {
		// Some setting or policy of the server dropped rows without an error. The probe
		// will find a piece that is not whole, which stops the shard.
		err = fmt.Errorf("the server wrote %d of %d rows", out.written, piece.Rows)
	}
	if why := context.Cause(watched); err != nil && why != nil {
		err = fmt.Errorf("%w: %w", why, err)
	}
	cancel(nil)
	<-watcher
	return classify(out, err)
}

// statement is the fenced INSERT, without its FORMAT. The fence is read inside the INSERT itself:
// either the server began this statement before it knew the successor's epoch,
// then the successor finds it in the process list and waits, or it reads the epoch
// and refuses.
//
// The throwIf stands inside the subquery, which the server runs once, before it
// reads a row: then the condition is a constant and costs nothing. Around the
// subquery it would be a filter over every block (BenchmarkLand: 15 % more time
// than without a fence, against 2 %). ifNull is for profiles in which the maximum
// of no rows is NULL: the condition would be NULL too, and drop every row without
// an error.
//
// It goes past clickhouse-go, whose InsertFormat and PrepareBatch keep only the
// table's name and drop the SELECT, and with it the fence; its Exec wants statement
// and rows in one string. A landing table of engine Null with a materialized view
// works too, but the view is one more thing that an operator can drop.
func (s *node) statement(t schemas.Table, batch pipeline.BatchID, epoch uint64) string {
	fence := fmt.Sprintf("SELECT throwIf(ifNull(max(epoch), 0) > %d, %s) FROM %s WHERE ledger = %d AND shard = %d",
		epoch, schemas.QuoteString(fenceMark), s.name(schemas.Fence.Name), batch.Ledger(), batch.Shard())
	return fmt.Sprintf("INSERT INTO %s (%s) SELECT * FROM input(%s) WHERE (%s) = 0",
		s.name(t.Name), t.ColumnNames(), schemas.QuoteString(t.Structure()), fence)
}

// queryID names an INSERT for people and for queries of system.processes. Its
// last part makes it unique, as a server refuses an id that still runs.
func (s *node) queryID(batch pipeline.BatchID, table, partition string, epoch uint64) string {
	return fmt.Sprintf("%s%d-%s-%s-e%d-%s%d", queryPrefix(batch.Ledger(), batch.Shard()),
		batch.Seq(), table, partition, epoch, s.nonce, s.serial.Add(1))
}

// queryPrefix begins the query id of every INSERT of a shard.
func queryPrefix(ledger uint16, shard int) string {
	return fmt.Sprintf("millrace-%d-%d-", ledger, shard)
}

// errVanished ends an INSERT that the server no longer knows.
var (
	errVanished = errors.New("the server no longer runs the INSERT and has not answered")
	errLost     = errors.New("the server does not answer")
)

// watch asks the server whether the INSERT still runs, and ends it when three
// answers in a row say no, or when the server has not answered for LostAfter. An
// INSERT that the server answered is never disturbed, and one that it runs may
// take as long as it likes: a deadline of ours would make the server cancel it
// at a moment when its part may or may not be there.
//
// Over HTTP the server lists an INSERT only after its first 256 KiB
// (max_query_size), or the whole body if that is shorter: until then, "not running"
// says nothing.
func (s *node) watch(ctx context.Context, id string, sent <-chan struct{}, end context.CancelCauseFunc) {
	tick := time.NewTicker(s.config.WatchInterval)
	defer tick.Stop()
	missed, listed, heard := 0, false, time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		n, err := s.running(ctx, "query_id = "+schemas.QuoteString(id))
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && time.Since(heard) > s.config.LostAfter:
			end(errLost)
			return
		case err != nil:
			continue
		case n > 0:
			missed, listed = 0, true
		case listed || closed(sent):
			missed++
		}
		heard = time.Now()
		if missed == 3 {
			end(errVanished)
			return
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// newer gives those of newerSettings that the server has; it is asked once.
func (s *node) newer(ctx context.Context) ([]string, error) {
	s.mu.Lock()
	known := s.known
	s.mu.Unlock()
	if known == nil {
		var err error
		if known, err = s.askSettings(ctx); err != nil {
			return nil, fmt.Errorf("ask for the server's settings: %w", classifyRead(err))
		}
		s.mu.Lock()
		s.known = known
		s.mu.Unlock()
	}
	var out []string
	for _, pair := range newerSettings {
		if name, _, _ := strings.Cut(pair, "="); known[name] {
			out = append(out, pair)
		}
	}
	return out, nil
}

// askSettings gives the names of newerSettings that the server has.
func (s *node) askSettings(ctx context.Context) (map[string]bool, error) {
	names := make([]string, len(newerSettings))
	for i, pair := range newerSettings {
		name, _, _ := strings.Cut(pair, "=")
		names[i] = schemas.QuoteString(name)
	}
	text, err := s.exec(ctx, "", "SELECT name FROM system.settings WHERE name IN ("+strings.Join(names, ", ")+") FORMAT TabSeparated")
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, name := range strings.Fields(text) {
		known[name] = true
	}
	return known, nil
}
