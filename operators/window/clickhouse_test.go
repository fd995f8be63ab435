package window

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sort"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/operators/sketch"
	"github.com/millrace/millrace/pipeline"
)

// database is one database of a real server.
type database struct {
	t   *testing.T
	url string
}

// ask runs one statement, with the body behind it, and gives the answer.
func (d database) ask(statement string, body []byte) string {
	d.t.Helper()
	params := url.Values{"database": {"windows_test"}, "query": {statement}}
	if strings.HasPrefix(statement, "CREATE DATABASE") {
		params.Del("database")
	}
	resp, err := http.Post(d.url+"/?"+params.Encode(), "application/octet-stream", bytes.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		d.t.Fatalf("%s\n%s", statement, text)
	}
	return string(text)
}

// insert lands a record batch as one IPC stream.
func (d database) insert(table string, rec arrow.Record) {
	d.t.Helper()
	var b bytes.Buffer
	w := ipc.NewWriter(&b, ipc.WithSchema(rec.Schema()))
	if err := w.Write(rec); err != nil {
		d.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		d.t.Fatal(err)
	}
	d.ask("INSERT INTO "+table+" FORMAT ArrowStream", b.Bytes())
}

// One server for what this room writes in SQL.
func TestInClickHouse(t *testing.T) {
	httpURL, _ := localtest.StartClickHouse(t)
	database{t, httpURL}.ask("CREATE DATABASE windows_test ENGINE = Atomic", nil)
	t.Run("views", func(t *testing.T) { testViews(t, database{t, httpURL}) })
	t.Run("estimate", func(t *testing.T) { testEstimate(t, database{t, httpURL}) })
}

// The tables take what Apply gives, and the views of a run of two shards with late
// rows read as the oracle counts: sums to the unit, estimates as Estimate says.
func testViews(t *testing.T, d database) {
	cfg := lawWindows()
	for _, c := range cfg {
		table, err := c.Table().CreateSQL("windows_test")
		if err != nil {
			t.Fatal(err)
		}
		view, err := c.View().CreateSQL("windows_test")
		if err != nil {
			t.Fatal(err)
		}
		d.ask(table, nil)
		d.ask(view, nil)
	}
	rng := rand.New(rand.NewPCG(1, 30))
	flows := randomFlows(rng, 20_000, midnight-200_000, 400_000)
	for _, shard := range [][]flow{flows[:9000], flows[9000:]} {
		o, err := New(cfg, memory.DefaultAllocator)
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range cut(rng, shard, 4, 60_000) {
			in, release := input(t, memory.DefaultAllocator, uint64(i), s.watermark, s.flows...)
			land(t, d, o, in)
			release()
		}
	}
	rows := recount(cfg, flows)
	for _, c := range cfg {
		var mine []row
		for _, r := range rows {
			if r.table == "windows_"+c.Name {
				mine = append(mine, r)
			}
		}
		if diff := cmp.Diff(viewOf(c, mine), d.ask(c.readable(), nil)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.View().Name, diff)
		}
	}
}

func land(t *testing.T, d database, o *Operator, in pipeline.OperatorInput) {
	t.Helper()
	pieces, err := o.Apply(in)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pieces {
		d.insert(p.Table, p.Record)
		p.Record.Release()
	}
}

// readable selects from the view in the spelling of the test's own rows.
func (c Config) readable() string {
	columns := []string{"formatDateTime(window_start, '%dT%H:%i:%S', 'UTC')"}
	for _, name := range c.GroupBy {
		switch {
		case strings.HasSuffix(name, "_ip"):
			columns = append(columns, "replaceOne(toString("+name+"), '::ffff:', '')")
		default:
			columns = append(columns, "toString("+name+")")
		}
	}
	numbers := []string{"toString(rows)"}
	for _, name := range c.Sums {
		numbers = append(numbers, "toString("+name+")")
	}
	for _, name := range c.Distinct {
		numbers = append(numbers, "concat('~', toString(distinct_"+name+"))")
	}
	all := append(columns, numbers...)
	return fmt.Sprintf("SELECT concatWithSeparator(' ', %s) AS line FROM %s WHERE overflow = 0 AND window_end = window_start + INTERVAL %d SECOND ORDER BY line FORMAT TabSeparatedRaw",
		strings.Join(all, ", "), c.View().Name, int(c.Size.Seconds()))
}

// viewOf is what readable has to answer.
func viewOf(c Config, rows []row) string {
	var lines []string
	for key, r := range addUp(rows, func(r row) string { return r.key }) {
		line := strings.ReplaceAll(key, `"`, "") + fmt.Sprintf(" %d", r.rows)
		for _, v := range r.sums {
			line += fmt.Sprintf(" %d", v)
		}
		for _, registers := range r.registers {
			line += fmt.Sprintf(" ~%.0f", math.Round(estimate(registers)))
		}
		lines = append(lines, line+"\n")
	}
	sort.Strings(lines)
	return strings.Join(lines, "")
}

// The SQL formula gives what Estimate gives, from one value to millions.
func testEstimate(t *testing.T, d database) {
	rng := rand.New(rand.NewPCG(1, 31))
	var h sketch.HyperLogLog
	n := 0
	for _, size := range []int{0, 1, 2, 10, 100, 383, 1000, 2048, 6000, 50_000, 2_000_000} {
		for ; n < size; n++ {
			h.Add(sketch.HashUint64(rng.Uint64()))
		}
		var pairs []string
		for _, r := range h.Append(nil) {
			pairs = append(pairs, fmt.Sprintf("%d:%d", r.Index, r.Value))
		}
		text := d.ask("SELECT "+sketch.EstimateSQL("m")+" FROM format(TSV, 'm Map(UInt16, UInt8)', '{"+strings.Join(pairs, ",")+"}')", nil)
		var got float64
		if _, err := fmt.Sscan(text, &got); err != nil {
			t.Fatal(err)
		}
		if want := h.Estimate(); math.Abs(got-want) > 1e-9*want {
			t.Errorf("%d values: SQL says %v, Estimate %v", size, got, want)
		}
	}
}
