package rebuild

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// Target is where the ledger's rows are; sinks/clickhouse implements it.
type Target interface {
	Exec(ctx context.Context, sql string) (string, error)
	Fence(ctx context.Context, ledger uint16, shard int, epoch uint64) error
}

// ask runs a question and decodes each row of the answer.
func ask[T any](ctx context.Context, t Target, sql string) ([]T, error) {
	text, err := t.Exec(ctx, sql+" FORMAT JSONEachRow SETTINGS output_format_json_quote_64bit_integers = 0, max_query_size = 67108864")
	if err != nil {
		return nil, err
	}
	var out []T
	for d := json.NewDecoder(strings.NewReader(text)); ; {
		var row T
		switch err := d.Decode(&row); {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, fmt.Errorf("decode answer: %w", err)
		}
		out = append(out, row)
	}
}

// span is a run of batches of one shard: those behind after, up to upTo.
type span struct {
	ledger      uint16
	shard       int
	after, upTo uint64
}

func (s span) where() string {
	return fmt.Sprintf("(batch_id > %d AND batch_id <= %d)", uint64(pipeline.NewBatchID(s.ledger, s.shard, s.after)), uint64(pipeline.NewBatchID(s.ledger, s.shard, s.upTo)))
}

// either is the condition that a row is of one of the spans.
func either(spans []span) string {
	if len(spans) == 0 {
		return "0"
	}
	wheres := make([]string, len(spans))
	for i, s := range spans {
		wheres[i] = s.where()
	}
	return "(" + strings.Join(wheres, " OR ") + ")"
}

// whole is every batch of a ledger.
func whole(ledger uint16) string {
	return fmt.Sprintf("batch_id >= %d AND batch_id <= %d", uint64(pipeline.NewBatchID(ledger, 0, 0)), uint64(pipeline.NewBatchID(ledger, pipeline.MaxShards-1, pipeline.MaxSeq)))
}

// parts of a batch id in SQL.
const (
	shardSQL = "toUInt32(bitAnd(bitShiftRight(batch_id, 36), 4095))"
	seqSQL   = "bitAnd(batch_id, 68719476735)"
)

// Registered is one row of the table ledgers, with what the target has of it.
type Registered struct {
	ID        uint16 `json:"ledger"`
	Name      string `json:"name"`
	Shards    int    `json:"shards"`
	Resharded uint64 `json:"resharded"`
	Created   int64  `json:"created"` // ms UTC
	Ranges    int64  `json:"ranges"`  // of the table batches
	Last      int64  `json:"last"`    // ms UTC, of the newest of them
}

func registered(ctx context.Context, t Target) ([]Registered, error) {
	type count struct{ N int }
	resharded := "max(resharded_seq)"
	there, err := ask[count](ctx, t, "SELECT count() AS N FROM system.columns WHERE database = currentDatabase() AND table = 'ledgers' AND name = 'resharded_seq'")
	if err == nil && there[0].N == 0 {
		resharded = "0" // of a release that could not reshard
	}
	if err != nil {
		return nil, err
	}
	out, err := ask[Registered](ctx, t, `SELECT l.ledger AS ledger, l.name AS name, l.shards AS shards, l.resharded AS resharded, l.created AS created, b.ranges AS ranges, b.last AS last
FROM (SELECT ledger, argMin(name, _block_number) AS name, argMin(shards, _block_number) AS shards, `+resharded+` AS resharded, toUnixTimestamp64Milli(min(created)) AS created FROM ledgers GROUP BY ledger) AS l
LEFT JOIN (SELECT toUInt16(bitShiftRight(batch_id, 48)) AS ledger, count() AS ranges, toUnixTimestamp64Milli(max(committed)) AS last FROM batches GROUP BY ledger) AS b ON l.ledger = b.ledger
ORDER BY ledger`)
	if err != nil {
		return nil, fmt.Errorf("read the table ledgers: %w", err)
	}
	return out, nil
}

// rowTables are those whose rows say which batch wrote them.
//
// Errors: the target is a cluster; statements would reach one of its servers only.
func rowTables(ctx context.Context, t Target) ([]string, error) {
	type row struct{ Name string }
	spread, err := ask[row](ctx, t, "SELECT name AS Name FROM system.tables WHERE database = currentDatabase() AND engine = 'Distributed' ORDER BY name LIMIT 1")
	if err != nil {
		return nil, err
	}
	if len(spread) > 0 {
		return nil, fmt.Errorf("table %q is Distributed: a ledger can be rebuilt from one server, not from a cluster yet: restore it from a copy", spread[0].Name)
	}
	found, err := ask[row](ctx, t, `SELECT name AS Name FROM system.tables WHERE database = currentDatabase() AND endsWith(engine, 'MergeTree') AND name != 'batches'
AND name IN (SELECT table FROM system.columns WHERE database = currentDatabase() AND name = 'batch_id') ORDER BY name`)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(found))
	for i, r := range found {
		names[i] = r.Name
	}
	return names, nil
}

type shardSeq struct {
	Shard int
	Seq   uint64
}

// highest gives the highest sequence number of each shard in a table.
func highest(ctx context.Context, t Target, table string, ledger uint16) ([]shardSeq, error) {
	out, err := ask[shardSeq](ctx, t, fmt.Sprintf("SELECT %s AS Shard, max(%s) AS Seq FROM %s WHERE %s GROUP BY Shard ORDER BY Shard", shardSQL, seqSQL, schemas.QuoteName(table), whole(ledger)))
	if err != nil {
		return nil, fmt.Errorf("read batches of table %q: %w", table, err)
	}
	return out, nil
}
