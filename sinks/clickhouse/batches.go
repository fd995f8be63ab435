package clickhouse

import (
	"context"
	"fmt"
	"slices"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// landBatches writes the byte ranges behind the batches; see Sink.LandBatches.
func (s *node) landBatches(ctx context.Context, manifests []pipeline.Manifest) error {
	const most = 4096 // batches an INSERT: a few MB
	for len(manifests) > 0 {
		n := min(most, len(manifests))
		record := batchRows(manifests[:n])
		err := s.landPlain(ctx, schemas.Batches, record)
		record.Release()
		if err != nil {
			return fmt.Errorf("land %d batches behind %v: %w", n, manifests[0].Batch, err)
		}
		manifests = manifests[n:]
	}
	return nil
}

// landPlain makes an INSERT that may be repeated. Unlike that of a piece it has a
// deadline, as nobody minds whether a given-up one lands.
func (s *node) landPlain(ctx context.Context, t schemas.Table, record arrow.Record) error {
	if record.NumRows() == 0 {
		return nil
	}
	ctx, cancel := patience(ctx, s.config.QueryTimeout)
	defer cancel()
	_, err := s.wire.insert(ctx, insertion{
		id:        fmt.Sprintf("millrace-%s-%s%d", t.Name, s.nonce, s.serial.Add(1)),
		statement: fmt.Sprintf("INSERT INTO %s (%s)", s.name(t.Name), t.ColumnNames()),
		settings:  slices.Concat(honest, plainSettings), table: t, record: record, written: make(chan struct{}),
	})
	return classifyRead(err)
}

// batchRows gives one row for each unit.
//
// Shape: the schema of schemas.Batches.
func batchRows(manifests []pipeline.Manifest) arrow.Record {
	b := array.NewRecordBuilder(memory.DefaultAllocator, schemas.Batches.ArrowSchema())
	defer b.Release()
	number := func(column string, v uint64) {
		b.Field(schemas.Batches.Index(column)).(*array.Uint64Builder).Append(v)
	}
	for _, m := range manifests {
		for _, u := range m.Units {
			number("batch_id", uint64(m.Batch))
			b.Field(schemas.Batches.Index("committed")).(*array.TimestampBuilder).Append(arrow.Timestamp(m.Created))
			if err := b.Field(schemas.Batches.Index("blob")).(*array.BinaryDictionaryBuilder).AppendString(u.Blob.String()); err != nil {
				panic("BUG: dictionary of blobs: " + err.Error())
			}
			b.Field(schemas.Batches.Index("generation")).(*array.Uint32Builder).Append(u.Generation)
			number("offset", uint64(u.Offset))
			number("length", uint64(u.Length))
			b.Field(schemas.Batches.Index("hash")).(*array.StringBuilder).Append(u.Hash)
			number("rows", uint64(u.Rows))
			number("quarantined", uint64(u.Quarantined))
			number("filtered", uint64(u.Filtered))
		}
	}
	return b.NewRecord()
}
