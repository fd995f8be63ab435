package arrowfiles_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/ipc"

	"example.org/newports/arrowfiles"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/sinktest"
)

type target struct{ dir string }

func (g target) Open(testing.TB) pipeline.Sink {
	return &arrowfiles.Sink{Dir: g.dir, Tables: sinktest.Tables()}
}

func (g target) Read(t testing.TB, table schemas.Table) []arrow.Record {
	names, err := filepath.Glob(filepath.Join(g.dir, table.Name, "*.arrow"))
	if err != nil {
		t.Fatal(err)
	}
	var out []arrow.Record
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := ipc.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		for r.Next() {
			r.Record().Retain()
			out = append(out, r.Record())
		}
		if r.Err() != nil {
			t.Fatal(r.Err())
		}
		r.Release()
		f.Close()
	}
	return out
}

func (g target) Parts(t testing.TB, table schemas.Table) (rows []int64) {
	for _, rec := range g.Read(t, table) {
		rows = append(rows, rec.NumRows())
		rec.Release()
	}
	return rows
}

func TestSinkKeepsTheLaws(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Target { return target{t.TempDir()} })
}
