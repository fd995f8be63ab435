package main

import (
	"io"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"

	"github.com/millrace/millrace/schemas"
)

// arrowWriter writes an Arrow IPC stream. Each batch brings its own dictionaries,
// which a stream may replace.
type arrowWriter struct{ w *ipc.Writer }

func newArrowWriter(w io.Writer) *arrowWriter {
	return &arrowWriter{ipc.NewWriter(w, ipc.WithSchema(schemas.Flows.ArrowSchema()))}
}

func (a *arrowWriter) batchRows() int { return decodeRows }

func (a *arrowWriter) write(rec arrow.Record) error { return a.w.Write(rec) }

// close writes the end of the stream, and the schema when no row came.
func (a *arrowWriter) close() error { return a.w.Close() }

// parquetWriter writes a Parquet file with one row group for each batch: within a
// row group the file's dictionaries are then those of the batch, and texts are never
// spread out to be hashed again (12 times as fast with arrow/go v17).
type parquetWriter struct{ w *pqarrow.FileWriter }

// parquetRows are the rows of a row group, about.
const parquetRows = 128 << 10

func newParquetWriter(w io.Writer) (*parquetWriter, error) {
	options := []parquet.WriterProperty{
		parquet.WithCompression(compress.Codecs.Snappy),
		parquet.WithMaxRowGroupLength(4 * parquetRows),
		parquet.WithCreatedBy("millrace"),
	}
	for _, c := range schemas.Flows.Columns {
		// Only repeated text gains from a dictionary; building one of addresses and
		// counters takes most of the time.
		options = append(options, parquet.WithDictionaryFor(c.Name, c.Arrow.ID() == arrow.DICTIONARY))
	}
	// The file's writer closes what it writes to when it can; standard output stays
	// open for others.
	f, err := pqarrow.NewFileWriter(schemas.Flows.ArrowSchema(), struct{ io.Writer }{w}, parquet.NewWriterProperties(options...),
		pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema()))
	if err != nil {
		return nil, err
	}
	return &parquetWriter{f}, nil
}

func (p *parquetWriter) batchRows() int { return parquetRows }

func (p *parquetWriter) write(rec arrow.Record) error { return p.w.Write(rec) }

func (p *parquetWriter) close() error { return p.w.Close() }
