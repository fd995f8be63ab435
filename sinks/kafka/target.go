package kafka

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// target is what both kinds of sink share: which rows go where, and in what form.
type target struct {
	config  Config
	tables  map[string]schemas.Table
	options []kgo.Opt // of every client
	metrics *metrics
	log     *slog.Logger
}

func newTarget(c Config, tables []schemas.Table, deps Deps, guarantee string) (*target, error) {
	deps = deps.withDefaults()
	t := &target{config: c, tables: map[string]schemas.Table{}, log: deps.Logger}
	faults := []error{c.Validate()}
	for _, table := range tables {
		t.tables[table.Name] = table
	}
	for name := range c.Topics {
		if _, known := t.tables[name]; !known {
			faults = append(faults, fmt.Errorf("kafka: topics.%s: the pipeline has no table of this name", name))
		}
	}
	var err error
	if t.metrics, err = newMetrics(deps.Meter, guarantee); err != nil {
		faults = append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if t.options, err = c.Broker.Options(deps.Logger); err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	return t, nil
}

// tableSeparator joins the names of the tables in a piece's reference.
const tableSeparator = "+"

// Plan makes one piece of all rows of a batch that go to topics; see
// pipeline.Planner. The reference names the tables, so that a replay gives the same
// whatever topics have been configured since.
//
// Errors: a table of the manifest has no topic any more.
func (t *target) Plan(batch pipeline.BatchID, pieces []pipeline.Piece, recorded []pipeline.PieceRef) ([]pipeline.Piece, error) {
	sends := func(table string) bool { return t.config.Topics[table] != "" }
	if recorded != nil {
		if len(recorded) == 0 {
			return nil, nil
		}
		tables, err := t.tablesOf(recorded[0])
		if err != nil {
			return nil, err
		}
		sends = func(table string) bool { return tables[table] }
	}
	whole := pipeline.Piece{}
	var names []string
	for _, p := range pieces {
		if _, known := t.tables[p.Table]; !known {
			return nil, fmt.Errorf("BUG: table %q is unknown to the sink", p.Table)
		}
		if p.Rows == 0 || !sends(p.Table) {
			continue
		}
		if len(whole.Parts) == 0 {
			whole.MinTime, whole.MaxTime = p.MinTime, p.MaxTime
		}
		whole.MinTime, whole.MaxTime = min(whole.MinTime, p.MinTime), max(whole.MaxTime, p.MaxTime)
		whole.Rows += p.Rows
		whole.Parts = append(whole.Parts, p)
		if len(names) == 0 || names[len(names)-1] != p.Table {
			names = append(names, p.Table)
		}
	}
	if len(whole.Parts) == 0 {
		return nil, nil
	}
	whole.Retain()
	whole.Table = strings.Join(names, tableSeparator)
	return []pipeline.Piece{whole}, nil
}

// tablesOf reads the tables out of a reference, each of which must have a topic.
func (t *target) tablesOf(ref pipeline.PieceRef) (map[string]bool, error) {
	tables := map[string]bool{}
	for name := range strings.SplitSeq(ref.Table, tableSeparator) {
		if _, known := t.tables[name]; !known {
			return nil, fmt.Errorf("table %q is unknown to the sink", name)
		}
		if t.config.Topics[name] == "" {
			return nil, fmt.Errorf("table %q has no topic, but a batch that has not landed holds rows of it: give it one until the batch has landed", name)
		}
		tables[name] = true
	}
	return tables, nil
}

// check refuses a piece whose parts are not what they say, before anything is sent.
func (t *target) check(p pipeline.Piece) error {
	if _, err := t.tablesOf(p.PieceRef); err != nil {
		return err
	}
	rows := int64(0)
	for _, part := range p.Parts {
		table, known := t.tables[part.Table]
		if !known {
			return fmt.Errorf("BUG: table %q is unknown to the sink", part.Table)
		}
		if part.Record != nil {
			table = table.Of(int(part.Record.NumCols()))
		}
		if err := part.Check(table); err != nil {
			return err
		}
		rows += part.Rows
	}
	if rows != p.Rows {
		return fmt.Errorf("BUG: the piece says %d rows and has %d", p.Rows, rows)
	}
	return nil
}

// producerOptions are those of every client that writes rows.
func (t *target) producerOptions() []kgo.Opt {
	return append([]kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(codecs[t.config.Compression]),
		kgo.MaxBufferedBytes(maxBuffered),
		// As Java does it, so that others' rows with the same key lie beside ours.
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
	}, t.options...)
}
