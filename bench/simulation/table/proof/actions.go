package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace/millrace/bench/simulation/table"
	"github.com/millrace/millrace/pipeline"
)

// action is one step of a script, for both sides.
type action interface {
	fmt.Stringer
	// run does it on the engine.
	run(ctx context.Context, d *database) error
	// model does it on the model.
	model(m *table.Server) error
}

// inserting is an action that is one INSERT: a kill can meet it.
type inserting interface {
	action
	insert() table.Insert
	// probed says what to ask the sink for afterwards.
	probed() (table string, batch pipeline.BatchID)
}

// landing lands one piece through the sink.
type landing struct {
	table string
	batch pipeline.BatchID
	epoch uint64
	rows  []row
}

func (a landing) String() string {
	return fmt.Sprintf("land in %s batch %d epoch %d rows %v", a.table, uint64(a.batch), a.epoch, a.rows)
}

func (a landing) run(ctx context.Context, d *database) error {
	for _, t := range d.tables {
		if t.Name == a.table {
			p := piece(t, a.batch, a.rows)
			defer p.Release()
			return d.sink.Land(ctx, a.batch, a.epoch, p)
		}
	}
	return fmt.Errorf("BUG: no table %q", a.table)
}

func (a landing) insert() table.Insert {
	return table.Insert{
		Query: a.String(), Table: a.table, Batch: uint64(a.batch), Blocks: parts(a.batch, a.rows, len(a.rows)),
		Ledger: a.batch.Ledger(), Shard: a.batch.Shard(), Epoch: a.epoch,
	}
}

func (a landing) model(m *table.Server) error { return m.Insert(a.insert()) }

func (a landing) probed() (string, pipeline.BatchID) { return a.table, a.batch }

// raising raises the fence through the sink.
type raising struct {
	shard int
	epoch uint64
}

func (a raising) String() string { return fmt.Sprintf("fence shard %d epoch %d", a.shard, a.epoch) }

func (a raising) run(ctx context.Context, d *database) error {
	return d.sink.Fence(ctx, ledger, a.shard, a.epoch)
}

func (a raising) model(m *table.Server) error { return m.Fence(ledger, a.shard, a.epoch) }

// ledger of all scripts' batches.
const ledger = 1

// tokens says how an INSERT asks for deduplication.
type tokens int

const (
	byToken tokens = iota
	byContent
	off
)

// insertion is an INSERT without a fence, as other programs write it.
type insertion struct {
	table string
	batch pipeline.BatchID
	rows  []row
	block int // rows
	how   tokens
	token string
	// single refuses blocks over several partitions.
	single bool
}

func (a insertion) String() string {
	how := [...]string{"token " + a.token, "content", "off"}[a.how]
	if a.single {
		how += " single"
	}
	return fmt.Sprintf("insert into %s batch %d by %s block %d rows %v", a.table, uint64(a.batch), how, a.block, a.rows)
}

func (a insertion) run(ctx context.Context, d *database) error {
	settings := []string{
		"async_insert=0", "max_threads=1", "max_insert_threads=1", "input_format_parallel_parsing=0", "optimize_on_insert=0",
		fmt.Sprintf("max_insert_block_size=%d", a.block), fmt.Sprintf("min_insert_block_size_rows=%d", a.block), "min_insert_block_size_bytes=0",
	}
	if a.single {
		settings = append(settings, "max_partitions_per_insert_block=1", "throw_on_max_partitions_per_insert_block=1")
	}
	switch a.how {
	case byToken:
		settings = append(settings, "deduplicate_insert='enable'", "insert_deduplicate=1", "insert_deduplication_token='"+a.token+"'")
	case byContent:
		settings = append(settings, "deduplicate_insert='enable'", "insert_deduplicate=1")
	case off:
		settings = append(settings, "deduplicate_insert='disable'", "insert_deduplicate=0")
	}
	values := make([]string, len(a.rows))
	for i, r := range a.rows {
		values[i] = r.values(a.batch)
	}
	_, err := d.http.Exec(ctx, fmt.Sprintf("INSERT INTO %s (time, batch_id, v, pad) SETTINGS %s VALUES %s", a.table, strings.Join(settings, ", "), strings.Join(values, ", ")))
	return err
}

func (a insertion) insert() table.Insert {
	in := table.Insert{Query: a.String(), Table: a.table, Batch: uint64(a.batch), Blocks: parts(a.batch, a.rows, a.block), Content: a.how == byContent, Single: a.single}
	if a.how == byToken {
		in.Token = a.token
	}
	return in
}

func (a insertion) model(m *table.Server) error { return m.Insert(a.insert()) }

func (a insertion) probed() (string, pipeline.BatchID) { return a.table, a.batch }

// statement is anything that one line of SQL says.
type statement struct {
	sql   string
	apply func(m *table.Server) error
}

func (a statement) String() string { return a.sql }

func (a statement) run(ctx context.Context, d *database) error {
	_, err := d.http.Exec(ctx, a.sql)
	return err
}

func (a statement) model(m *table.Server) error { return a.apply(m) }

func dropPartition(name string, day int) action {
	return statement{
		fmt.Sprintf("ALTER TABLE %s DROP PARTITION %s", name, partition(day)),
		func(m *table.Server) error { return m.DropPartition(name, partition(day)) },
	}
}

func truncate(name string) action {
	return statement{"TRUNCATE TABLE " + name, func(m *table.Server) error { return m.Truncate(name) }}
}

// deleteRest deletes the rows whose v leaves the rest.
func deleteRest(name string, by, rest uint64) action {
	return statement{
		fmt.Sprintf("ALTER TABLE %s DELETE WHERE v %% %d = %d SETTINGS mutations_sync = 1", name, by, rest),
		func(m *table.Server) error {
			return m.Delete(name, func(r table.Row) bool {
				var day, batch, v, pad uint64
				_, _ = fmt.Sscanf(r, "%d/%d/%d/%d", &day, &batch, &v, &pad) // Written by row.text.
				return v%by == rest
			})
		},
	}
}

func merge(name string, day int) action {
	return statement{
		fmt.Sprintf("OPTIMIZE TABLE %s PARTITION %s FINAL", name, partition(day)),
		func(m *table.Server) error { return m.Merge(name, partition(day)) },
	}
}

func setWindow(name string, window int) action {
	return statement{
		fmt.Sprintf("ALTER TABLE %s MODIFY SETTING non_replicated_deduplication_window = %d", name, window),
		func(m *table.Server) error { return m.Window(name, window) },
	}
}

// unlimited is what parts_to_throw_insert is by default.
const unlimited = 3000

func setLimit(name string, limit int) action {
	return statement{
		fmt.Sprintf("ALTER TABLE %s MODIFY SETTING parts_to_throw_insert = %d", name, limit),
		func(m *table.Server) error { return m.Limit(name, limit) },
	}
}

// reattach closes the table and opens it again.
type reattach struct{ table string }

func (a reattach) String() string { return "DETACH TABLE, ATTACH TABLE " + a.table }

func (a reattach) run(ctx context.Context, d *database) error {
	for _, what := range []string{"DETACH", "ATTACH"} {
		sync := ""
		if what == "DETACH" {
			sync = " SYNC"
		}
		if _, err := d.http.Exec(ctx, what+" TABLE "+a.table+sync); err != nil {
			return err
		}
	}
	return nil
}

func (a reattach) model(m *table.Server) error { return m.Reattach(a.table) }

type dropTable struct{ table string }

func (a dropTable) String() string { return "DROP TABLE " + a.table }

func (a dropTable) run(ctx context.Context, d *database) error {
	_, err := d.http.Exec(ctx, "DROP TABLE "+a.table+" SYNC")
	d.live = slices.DeleteFunc(slices.Clone(d.live), func(t string) bool { return t == a.table })
	return err
}

func (a dropTable) model(m *table.Server) error { return m.Drop(a.table) }

// createTable makes a table again, through Setup, which puts the settings of the other
// one right as well.
type createTable struct {
	table  string
	window int
}

func (a createTable) String() string { return "CREATE TABLE " + a.table }

func (a createTable) run(ctx context.Context, d *database) error {
	d.live = append(slices.Clone(d.live), a.table)
	return d.http.Setup(ctx, nil)
}

func (a createTable) model(m *table.Server) error {
	m.CreateWindow(a.table, windowOf(a.table, a.window))
	return m.Window(windowed, a.window)
}

// windowOf gives the window that a table is made with.
func windowOf(name string, window int) int {
	if name == plain {
		return 0
	}
	return window
}
