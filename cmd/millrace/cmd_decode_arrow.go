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

func (a *arrowWriter) write(rec arrow.Record) error { return a.w.Write(rec) }

// close writes the end of the stream, and the schema when no row came.
func (a *arrowWriter) close() error { return a.w.Close() }

// parquetWriter writes a Parquet file with row groups of parquetRows rows.
type parquetWriter struct{ w *pqarrow.FileWriter }

const parquetRows = 256 << 10

func newParquetWriter(w io.Writer) (*parquetWriter, error) {
	props := parquet.NewWriterProperties(
		parquet.WithCompression(compress.Codecs.Snappy),
		parquet.WithMaxRowGroupLength(parquetRows),
		parquet.WithCreatedBy("millrace"),
	)
	// The file's writer closes what it writes to when it can; standard output stays
	// open for others.
	f, err := pqarrow.NewFileWriter(schemas.Flows.ArrowSchema(), struct{ io.Writer }{w}, props,
		pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema()))
	if err != nil {
		return nil, err
	}
	return &parquetWriter{f}, nil
}

func (p *parquetWriter) write(rec arrow.Record) error { return p.w.WriteBuffered(rec) }

func (p *parquetWriter) close() error { return p.w.Close() }
