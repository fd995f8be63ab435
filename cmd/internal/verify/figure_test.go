package verify_test

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/millrace/millrace/cmd/internal/jobtest"
	"github.com/millrace/millrace/cmd/internal/verify"
	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/operators/window"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/clickhouse"
)

var (
	batches = flag.Int("batches", 2000, "commits that the quick level compares")
	limit   = flag.Duration("within", time.Minute, "how long it may take for 10,000 commits")
)

// TestQuickLevel measures the quick level on many commits of 500 rows each.
func TestQuickLevel(t *testing.T) {
	url, _ := localtest.StartClickHouse(t)
	cfg := clickhouse.DefaultConfig()
	cfg.URL = url
	windows := window.DefaultWindows()
	tables := []schemas.Table{schemas.Flows, schemas.Quarantine}
	for _, w := range windows {
		tables = append(tables, w.Table())
	}
	sink, err := clickhouse.New(cfg, tables)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Close() })
	if err := sink.Setup(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	const rows = 500
	hour := time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)
	for _, sql := range fill(*batches, rows, hour, windows) {
		if _, err := sink.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := sink.Conn()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	r, err := verify.Run(t.Context(), verify.Deps{Conn: conn, Windows: windows, Now: time.Now}, verify.Options{From: hour, To: hour.Add(time.Hour), Level: verify.Quick})
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	if err := (verify.Printer{Out: t.Output(), Most: 5}).Result(r); err != nil {
		t.Fatal(err)
	}
	jobtest.Figures(t, map[string]any{
		"batches": r.Batches, "rows": r.Rows, "windows": r.Windows, "exact": r.Exact, "seconds": took.Seconds(), "limit_seconds": limit.Seconds(),
	})
	if !r.Exact || r.Batches != int64(*batches) || r.Rows != int64(*batches)*rows || r.Windows == 0 {
		t.Errorf("%+v", r)
	}
	if *batches >= 10_000 && took > *limit {
		t.Errorf("%v for %d commits, want %v", took, *batches, *limit)
	}
}

// fill makes commits of one ledger with four shards over 40 blobs, each with a byte
// range of its own, and the windows that they add up to.
func fill(batches, rows int, hour time.Time, windows []window.Config) []string {
	const blob = "concat('acc/logs/nic=', toString(b % 40), '/y=2026/m=11/d=20/h=08/m=00/PT1H.json')"
	const id = "bitShiftLeft(toUInt64(1), 48) + bitShiftLeft(toUInt64(b % 4), 36) + intDiv(b, 4) + 1"
	length := rows * 100
	all := []string{
		"INSERT INTO ledgers (ledger, name, shards, created) SELECT 1, 'figure', 4, now64(3)",
		fmt.Sprintf(`INSERT INTO flows (time, mac, src_ip, dst_ip, src_port, dst_port, protocol, direction, action, bytes_sent, rule, blob, record_offset, ordinal, batch_id)
			SELECT toDateTime64(%d, 3, 'UTC') + intDiv(b * 3500, %d), toString(b %% 40), toIPv6('10.0.0.1'), toIPv6(concat('10.0.1.', toString(n %% 200))), 40000, 443, 6, 'outbound', 'allowed', n, 'r',
			%s, 12 + intDiv(b, 40) * %d + n * 100, 0, %s FROM (SELECT intDiv(number, %d) AS b, number %% %[6]d AS n FROM numbers(%d)) SETTINGS max_partitions_per_insert_block = 10`,
			hour.Unix(), batches, blob, length, id, rows, batches*rows),
		fmt.Sprintf("INSERT INTO batches (batch_id, committed, blob, offset, length, hash, rows) SELECT %s, now64(3), %s, 12 + intDiv(b, 40) * %d, %[3]d, 'h', %d FROM (SELECT number AS b FROM numbers(%d))", id, blob, length, rows, batches),
	}
	for _, w := range windows {
		keys, sums, totals := "", "", ""
		for _, k := range w.GroupBy {
			keys += ", " + k
		}
		for _, s := range w.Sums {
			sums, totals = sums+", "+s, totals+", sum("+s+")"
		}
		all = append(all, fmt.Sprintf(`INSERT INTO windows_%s (window_start, window_end%s, rows%s, batch_id)
			SELECT toDateTime64(toStartOfInterval(time, INTERVAL %d SECOND), 3, 'UTC') AS w, w + %[4]d%[2]s, count()%[5]s, max(batch_id) FROM flows GROUP BY w, bitShiftRight(batch_id, 36)%[2]s`, w.Name, keys, sums, int(w.Size.Seconds()), totals))
	}
	return all
}
