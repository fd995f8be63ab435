package jobtest

import (
	"fmt"
	"time"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/cmd/internal/reconcile"
)

// Verdict is everything that a world's tables are held to.
type Verdict struct {
	reconcile.Verdict
	Windows uint64 // groups of windows that differ from what the rows give
	Ranges  uint64 // blobs whose committed byte ranges leave a gap or overlap
	Counts  uint64 // blobs whose batches count other rows or entries than were written
}

// Exact says that everything is there once, and as it was written.
func (v Verdict) Exact() bool { return v.Good() && v.Spoiled() == 0 }

// Spoiled counts what is there, but not as it was written.
func (v Verdict) Spoiled() uint64 {
	return v.Altered + v.MinutesAltered + v.Windows + v.Ranges + v.Counts
}

// windows are those of every pipeline: table, how the rows give the start, groups.
var windows = [][3]string{
	{"windows_traffic_1m", "toStartOfMinute(time)", "mac, direction, action, protocol"},
	{"windows_services_1m", "toStartOfMinute(time)", "dst_ip, dst_port, protocol, direction, action"},
	{"windows_rules_5m", "toStartOfFiveMinutes(time)", "acl_id, rule, direction, action"},
}

// windowsDiffer counts groups whose windows do not add up to what the rows give. Sums
// of both cancel out only where they are equal.
func windowsDiffer(table, start, groups string) string {
	return fmt.Sprintf(`SELECT count() FROM (SELECT w, %[3]s FROM
(SELECT toUnixTimestamp(%[2]s) AS w, %[3]s, toInt64(1) AS n, toInt64(bytes_sent) AS b, toInt64(packets_received) AS p FROM millrace.flows
UNION ALL
SELECT toUnixTimestamp(toDateTime(window_start)) AS w, %[3]s, -toInt64(rows), -toInt64(bytes_sent), -toInt64(packets_received) FROM millrace.%[1]s)
GROUP BY ALL HAVING sum(n) != 0 OR sum(b) != 0 OR sum(p) != 0)`, table, start, groups)
}

// rangesDiffer counts blobs whose byte ranges do not follow each other.
const rangesDiffer = `SELECT count() FROM
(SELECT blob, generation, arraySort(groupArray((offset, offset + length))) AS r FROM millrace.batches FINAL GROUP BY ALL)
WHERE arrayExists((x, y) -> x.1 != y.2 AND y.2 != 0, r, arrayPopBack(arrayPushFront(r, (toUInt64(0), toUInt64(0)))))`

// countsDiffer counts blobs whose batches speak of other rows than there are.
const countsDiffer = `SELECT count() FROM
(SELECT blob, sum(rows) AS n, sum(quarantined) AS q FROM millrace.batches FINAL GROUP BY blob) AS b
FULL OUTER JOIN (SELECT blob, count() AS n FROM millrace.flows GROUP BY blob) AS f ON b.blob = f.blob
LEFT JOIN (SELECT blob, count() AS q FROM millrace.quarantine GROUP BY blob) AS x ON f.blob = x.blob
WHERE b.n != f.n OR b.q != x.q`

// Settle waits until as many rows have landed as were written, or for as long as a
// test has patience: what is missing then, Reconcile tells. A pipeline that is stopped
// leaves to the next one what it had not been told of.
func (w *World) Settle(truth traffic.Truth) {
	w.T.Helper()
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if n, err := w.Count("SELECT count() FROM millrace.flows"); err == nil && n >= truth.Totals.Tuples {
			return
		}
	}
}

// Reconcile compares everything with the truth, and logs where they differ. Every
// window must have closed.
func (w *World) Reconcile(truth traffic.Truth) Verdict {
	w.T.Helper()
	conn, err := w.Tables.Conn()
	if err != nil {
		w.T.Fatal(err)
	}
	held, err := reconcile.Tables{Conn: conn, Database: Database}.Read(w.T.Context())
	if err != nil {
		w.T.Fatal(err)
	}
	verdict, notes := reconcile.Judge(truth, held)
	v := Verdict{Verdict: verdict, Ranges: w.Number(rangesDiffer), Counts: w.Number(countsDiffer)}
	for _, x := range windows {
		v.Windows += w.Number(windowsDiffer(x[0], x[1], x[2]))
	}
	const most = 20
	for _, n := range notes[:min(len(notes), most)] {
		w.T.Log(n)
	}
	if !v.Exact() {
		w.T.Logf("%+v; %d differences in all", v, len(notes))
	}
	return v
}
