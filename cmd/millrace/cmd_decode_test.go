package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"

	"github.com/millrace/millrace/schemas"
)

// decodeSample writes a log of three batches and gives its path and its rows.
func decodeSample(t *testing.T) (path string, rows int) {
	t.Helper()
	var b strings.Builder
	b.WriteString(`{"records":[`)
	rows = 3 * decodeRows
	for i := range rows / 64 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"macAddress":"%012X","flowRecords":{"flows":[{"aclID":"a","flowGroups":[{"rule":"UserRule_%d","flowTuples":[`, i%7, i)
		for j := range 64 {
			if j > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `"%d,10.0.0.%d,2001:db8::%x,%d,443,6,O,E,NX,1,2,3,%d"`, 1795413600000+i*1000+j, j, i, j, i)
		}
		b.WriteString(`]}]}]}}`)
	}
	b.WriteString(`]}`)
	path = filepath.Join(t.TempDir(), "PT1H.json")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, rows
}

func decodeTo(t *testing.T, format, path string) []byte {
	t.Helper()
	var out, errs bytes.Buffer
	d := &decodeRun{stderr: &errs}
	if err := d.run(context.Background(), format, []string{path}, &out); err != nil || errs.Len() > 0 {
		t.Fatalf("decode -o %s: %v %s", format, err, &errs)
	}
	return out.Bytes()
}

// Every output holds every row, with the same values as the JSON.
func TestDecodeOutputsAgree(t *testing.T) {
	path, rows := decodeSample(t)
	want := decodeTo(t, "json", path)
	if n := bytes.Count(want, []byte("\n")); n != rows {
		t.Fatalf("%d lines of JSON, want %d", n, rows)
	}
	t.Run("arrow", func(t *testing.T) {
		r, err := ipc.NewReader(bytes.NewReader(decodeTo(t, "arrow", path)))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Release()
		if !r.Schema().Equal(schemas.Flows.ArrowSchema()) {
			t.Errorf("schema %v", r.Schema())
		}
		sameJSON(t, r, want)
	})
	t.Run("parquet", func(t *testing.T) {
		f, err := file.NewParquetReader(bytes.NewReader(decodeTo(t, "parquet", path)))
		if err != nil {
			t.Fatal(err)
		}
		fr, err := pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{BatchSize: 1 << 20}, memory.NewGoAllocator())
		if err != nil {
			t.Fatal(err)
		}
		r, err := fr.GetRecordReader(context.Background(), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Release()
		sameJSON(t, r, want)
	})
	t.Run("table", func(t *testing.T) {
		if n := bytes.Count(decodeTo(t, "table", path), []byte("\n")); n != rows+1 {
			t.Errorf("%d lines, want %d and a header", n, rows)
		}
	})
	t.Run("csv", func(t *testing.T) {
		if n := bytes.Count(decodeTo(t, "csv", path), []byte("\n")); n != rows+1 {
			t.Errorf("%d lines, want %d and a header", n, rows)
		}
	})
}

// sameJSON turns record batches into JSON lines and compares.
func sameJSON(t *testing.T, r array.RecordReader, want []byte) {
	t.Helper()
	out, err := newRowWriter("json", &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	out.(*textWriter).out.Reset(&got)
	for r.Next() {
		if err := out.write(r.Record()); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Err(); err != nil && err != io.EOF { //nolint:errorlint // readers give io.EOF bare.
		t.Fatal(err)
	}
	if err := out.close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		i := 0
		for i < got.Len() && i < len(want) && got.Bytes()[i] == want[i] {
			i++
		}
		t.Errorf("%d bytes, want %d; they differ at %d: %.300s", got.Len(), len(want), i, got.Bytes()[min(i, got.Len()):])
	}
}

func TestDecodeJSONHasEveryColumn(t *testing.T) {
	path, _ := decodeSample(t)
	line, _, _ := bytes.Cut(decodeTo(t, "json", path), []byte("\n"))
	var row map[string]any
	if err := json.Unmarshal(line, &row); err != nil {
		t.Fatal(err)
	}
	for _, c := range schemas.Flows.Columns {
		if v, ok := row[c.Name]; !ok || v == nil {
			t.Errorf("column %q is %v", c.Name, v)
		}
	}
	if len(row) != len(schemas.Flows.Columns) {
		t.Errorf("%d members, want %d", len(row), len(schemas.Flows.Columns))
	}
}

func TestDecodeStopsWhenAsked(t *testing.T) {
	path, _ := decodeSample(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := (&decodeRun{stderr: io.Discard}).run(ctx, "json", []string{path}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "context canceled") {
		t.Errorf("error %v", err)
	}
}

func TestDecodeProgressOnATerminal(t *testing.T) {
	var out bytes.Buffer
	p := newDecodeProgress(&out, io.Discard, []input{{size: 100_000_000}})
	p.terminal, p.every = true, 0
	p.read = 25_000_000
	p.step(1000)
	p.clear()
	if s := out.String(); !strings.HasPrefix(s, "\r\x1b[K25 MB, 1000 rows, ") || !strings.Contains(s, "25 %, ") || !strings.HasSuffix(s, " left\r\x1b[K") {
		t.Errorf("progress %q", s)
	}
}
