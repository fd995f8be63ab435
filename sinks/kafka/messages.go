package kafka

import (
	"fmt"
	"strconv"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/schemas/rowtext"
)

// Headers of messages.
const (
	HeaderBatch  = "batch_id" // the number that the column batch_id has
	HeaderSchema = "schema"   // the table and the version of its rows, as flows/1
	HeaderRows   = "rows"     // place of the row among those of its table in the batch, from 0; first-last for Arrow
	HeaderPart   = "part"     // i/n: the i-th of n Arrow messages of one record batch
)

// Sizes of what is allocated at one time.
const (
	slabBytes  = 256 << 10
	slabRecord = 1024
)

// messages hands every message of a batch to emit, in the order of its rows. Its
// records and their bytes belong to the receiver.
func (t *target) messages(batch pipeline.BatchID, piece pipeline.Piece, emit func(*kgo.Record) error) error {
	rows := map[string]int64{} // of each table so far
	for _, part := range piece.Parts {
		table := t.tables[part.Table]
		m := messenger{
			topic: t.config.Topics[part.Table], first: rows[part.Table], emit: emit,
			key: keys(table, part.Record, batch, t.config.key()),
			headers: []kgo.RecordHeader{
				{Key: HeaderBatch, Value: strconv.AppendUint(nil, uint64(batch), 10)},
				{Key: HeaderSchema, Value: fmt.Appendf(nil, "%s/%d", table.Name, schemas.RowVersion)},
			},
		}
		var err error
		if t.config.Format == FormatArrow {
			err = m.arrow(part.Record, t.config.key() == KeyMAC)
		} else {
			err = m.json(part.Record)
		}
		if err != nil {
			return err
		}
		rows[part.Table] += part.Rows
	}
	return nil
}

// messenger writes the messages of one record.
type messenger struct {
	topic   string
	first   int64 // number of the record's first row
	key     func(row int) []byte
	headers []kgo.RecordHeader // of every message
	emit    func(*kgo.Record) error
}

// keys gives the key of each row. Equal keys are one slice.
func keys(table schemas.Table, rec arrow.Record, batch pipeline.BatchID, kind string) func(row int) []byte {
	if kind == KeyNone {
		return func(int) []byte { return nil }
	}
	if macs, ok := macColumn(table, rec); ok && kind == KeyMAC {
		words := rowtext.Words(macs)
		texts := make([][]byte, len(words))
		for i, w := range words {
			texts[i] = []byte(w)
		}
		return func(row int) []byte { return texts[macs.GetValueIndex(row)] }
	}
	shard := fmt.Appendf(nil, "%d/%d", batch.Ledger(), batch.Shard())
	return func(int) []byte { return shard }
}

// macColumn gives the column of network interfaces, when the table has one.
func macColumn(table schemas.Table, rec arrow.Record) (*array.Dictionary, bool) {
	if table.MACColumn == "" {
		return nil, false
	}
	macs, ok := rec.Column(table.Index(table.MACColumn)).(*array.Dictionary)
	return macs, ok
}

// json writes one message a row. Records, headers and bytes are cut out of slabs:
// BenchmarkMessages has 4 allocations for each hundred rows of 1.3 KB.
func (m *messenger) json(rec arrow.Record) error {
	text := rowtext.New(rec, rowtext.JSON)
	var slab []byte
	var records []kgo.Record
	var headers []kgo.RecordHeader
	fixed := len(m.headers)
	for row := range int(rec.NumRows()) {
		if len(records) == 0 {
			records = make([]kgo.Record, slabRecord)
			headers = make([]kgo.RecordHeader, slabRecord*(fixed+1))
		}
		if cap(slab)-len(slab) < slabBytes/64 {
			slab = make([]byte, 0, slabBytes)
		}
		start := len(slab)
		slab = text.Append(slab, row)
		number := len(slab)
		slab = strconv.AppendInt(slab, m.first+int64(row), 10)
		copy(headers, m.headers)
		headers[fixed] = kgo.RecordHeader{Key: HeaderRows, Value: slab[number:len(slab):len(slab)]}
		r := &records[0]
		r.Topic, r.Key, r.Value = m.topic, m.key(row), slab[start:number:number]
		r.Headers = headers[: fixed+1 : fixed+1]
		records, headers = records[1:], headers[fixed+1:]
		if err := m.emit(r); err != nil {
			return err
		}
	}
	return nil
}

// arrow writes as few messages as the limit allows; with byKey, none holds rows of
// two keys.
func (m *messenger) arrow(rec arrow.Record, byKey bool) error {
	for from, rows := 0, int(rec.NumRows()); from < rows; {
		to := rows
		if byKey {
			for to = from + 1; to < rows && string(m.key(to)) == string(m.key(from)); {
				to++
			}
		}
		if err := m.arrowRun(rec, from, to); err != nil {
			return err
		}
		from = to
	}
	return nil
}

func (m *messenger) arrowRun(rec arrow.Record, from, to int) error {
	parts, err := cutArrow(rec, from, to, MaxArrowMessage)
	if err != nil {
		return err
	}
	for i, p := range parts {
		headers := append(m.headers[:len(m.headers):len(m.headers)],
			kgo.RecordHeader{Key: HeaderRows, Value: fmt.Appendf(nil, "%d-%d", m.first+int64(p.from), m.first+int64(p.to)-1)},
			kgo.RecordHeader{Key: HeaderPart, Value: fmt.Appendf(nil, "%d/%d", i+1, len(parts))})
		if err := m.emit(&kgo.Record{Topic: m.topic, Key: m.key(p.from), Value: p.stream, Headers: headers}); err != nil {
			return err
		}
	}
	return nil
}
