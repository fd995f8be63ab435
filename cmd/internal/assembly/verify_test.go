package assembly_test

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/cmd/internal/verify"
	"github.com/millrace/millrace/schemas"
)

// verifyBench is a world whose pipeline has landed half an hour of an estate.
type verifyBench struct {
	*world
	hour  time.Time
	truth traffic.Truth
}

func newVerifyBench(t *testing.T) *verifyBench {
	b := &verifyBench{world: newWorld(t, "sweeper: {interval: 1s, discover: 1s}\n"), hour: time.Now().UTC().Truncate(time.Hour).Add(-2 * time.Hour)}
	b.truth = b.past(b.Blobs, b.hour, b.hour.Add(30*time.Minute), 20_000)
	return b
}

// live lands what there is, and closes every window.
func (b *verifyBench) live() {
	b.T.Helper()
	r := b.run()
	b.WaitFor("SELECT count() FROM millrace.flows", fmt.Sprint(b.truth.Totals.Tuples))
	r.drain()
}

func quietDeps(t *testing.T) assembly.Deps {
	return assembly.Deps{Meter: metricnoop.Meter{}, Tracer: tracenoop.Tracer{}, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

func (b *verifyBench) deps() verify.Deps {
	b.T.Helper()
	p, deps, err := assembly.OpenVerify(b.T.Context(), b.Config(), quietDeps(b.T))
	if err != nil {
		b.T.Fatal(err)
	}
	b.T.Cleanup(p.Close)
	return deps
}

// verify compares the bench's hour.
func (b *verifyBench) verify(level verify.Level) *verify.Result {
	b.T.Helper()
	r, err := verify.Run(b.T.Context(), b.deps(), b.options(level))
	if err != nil {
		b.T.Fatal(err)
	}
	return r
}

func (b *verifyBench) options(level verify.Level) verify.Options {
	return verify.Options{From: b.hour, To: b.hour.Add(time.Hour), Level: level}
}

func (b *verifyBench) show(r *verify.Result) {
	if err := (verify.Printer{Out: b.T.Output(), Most: 30}).Result(r); err != nil {
		b.T.Fatal(err)
	}
}

// alter changes a table and waits for it.
func (b *verifyBench) alter(sql string) {
	b.T.Helper()
	b.Ask("ALTER TABLE millrace." + sql + " SETTINGS mutations_sync = 2")
}

// want compares what was found with kinds and counts.
func (b *verifyBench) want(name string, r *verify.Result, kinds map[verify.Kind]int64) {
	b.T.Helper()
	if !maps.Equal(r.Found, kinds) || r.Exact != (len(kinds) == 0) {
		b.T.Errorf("%s: found %v, want %v", name, r.Found, kinds)
		b.show(r)
	}
}

// TestVerify spoils what a pipeline has landed in ten ways and more, each in a blob of
// its own; each is named, and repaired where it can be.
func TestVerify(t *testing.T) {
	b := newVerifyBench(t)
	b.live()
	for _, level := range []verify.Level{verify.Quick, verify.Full} {
		r := b.verify(level)
		b.want("untouched", r, nil)
		if r.Rows != int64(b.truth.Totals.Tuples) || r.Quarantined != int64(b.truth.Totals.Malformed) || r.Windows == 0 || len(r.Expired) > 0 || r.Pending != (verify.Pending{}) {
			b.show(r)
			t.Errorf("%s: %+v", level, r)
		}
		if level == verify.Full && r.Written != int64(b.truth.Totals.Tuples+b.truth.Totals.Malformed) {
			t.Errorf("%d tuples in the bytes, want %d", r.Written, b.truth.Totals.Tuples+b.truth.Totals.Malformed)
		}
	}
	b.deletedPart()
	s := b.spoil()
	r := b.verify(verify.Full)
	b.show(r)
	for name, f := range s.findings(r) {
		if f == nil {
			t.Errorf("%s is not found", name)
		}
	}
	b.want("spoiled", r, s.kinds)
	if quick := b.verify(verify.Quick); quick.Exact || quick.Found[verify.MissingRows] < 2 || quick.Found[verify.SurplusRows] == 0 || quick.Found[verify.AlteredRows] > 0 {
		t.Errorf("the quick level found %v", quick.Found)
	}
	b.repaired(s)
}

// deletedPart deletes a part and has it landed again.
func (b *verifyBench) deletedPart() {
	b.T.Helper()
	before := b.content()
	part := b.Ask("SELECT _part FROM millrace.flows GROUP BY _part ORDER BY count() LIMIT 1")
	rows := int64(b.Number("SELECT count() FROM millrace.flows WHERE _part = " + schemas.QuoteString(part)))
	b.Ask("ALTER TABLE millrace.flows DROP PART " + schemas.QuoteString(part))
	missing := int64(0)
	for _, f := range b.verify(verify.Quick).Findings {
		if f.Kind == verify.MissingRows {
			missing += f.Count
		}
	}
	if missing != rows {
		b.T.Errorf("%d rows are missing, a part had %d", missing, rows)
	}
	b.want("a deleted part, repaired", b.repair().After, nil)
	if got := b.content(); got != before {
		b.T.Errorf("the tables after a repair:\n%s\nbefore:\n%s", got, before)
	}
}

// repaired makes a dry run, which changes nothing, a repair, and one more, which has
// nothing to do.
func (b *verifyBench) repaired(s *spoiled) {
	t := b.T
	content := b.content
	spoiled := content()
	dry, err := verify.Plan(t.Context(), b.deps(), b.options(verify.Full))
	if err != nil || len(dry.Steps) < 10 || content() != spoiled {
		t.Fatalf("a dry run of %d steps: %v, changed %v", len(dry.Steps), err, content() != spoiled)
	}
	done := b.repair()
	// What cannot be repaired is still said.
	b.want("repaired", done.After, map[verify.Kind]int64{verify.Rewritten: 1})
	if got := content(); got != s.before {
		t.Errorf("the tables after a repair:\n%s\nbefore they were spoiled:\n%s", got, s.before)
	}
	if again := b.repair(); len(again.Steps) > 0 {
		t.Errorf("a second repair did %+v", again.Steps)
	}
	if len(done.After.Expired) != 1 || done.After.Expired[0].Why != verify.BySource || done.After.Expired[0].Example != s.gone {
		t.Errorf("expired: %+v", done.After.Expired)
	}
	// What a TTL took is expired, and stays away.
	b.Ask("ALTER TABLE millrace.flows MODIFY TTL toDateTime(time) + INTERVAL 1 SECOND SETTINGS materialize_ttl_after_modify = 0")
	b.alter("flows DELETE WHERE 1")
	r := b.verify(verify.Full)
	b.want("behind a TTL", r, nil)
	if !slices.ContainsFunc(r.Expired, func(e verify.Expired) bool {
		return e.Why == verify.ByTTL && e.Table == "flows" && e.Rows == int64(b.truth.Totals.Tuples)
	}) {
		t.Errorf("expired: %+v", r.Expired)
	}
}

func (b *verifyBench) repair() *verify.Repaired {
	b.T.Helper()
	p, deps, rd, err := assembly.OpenRepair(b.T.Context(), b.Config(), quietDeps(b.T))
	if err != nil {
		b.T.Fatal(err)
	}
	defer p.Close()
	done, err := verify.Repair(b.T.Context(), deps, rd, b.options(verify.Full), func(s verify.Step) { b.T.Logf("step: %s %d rows: %.300s%s", s.Table, s.Rows, s.Statement, s.Text) })
	if err != nil {
		b.T.Fatal(err)
	}
	return done
}

// spoiled is what was spoiled.
type spoiled struct {
	before     string // the tables
	lost, gone string // blobs
	batch      string // of lost
	defects    map[string]func(f verify.Finding) bool
	kinds      map[verify.Kind]int64
}

func (s *spoiled) findings(r *verify.Result) map[string]*verify.Finding {
	out := map[string]*verify.Finding{}
	for name, is := range s.defects {
		out[name] = nil
		for i := range r.Findings {
			if is(r.Findings[i]) {
				out[name] = &r.Findings[i]
			}
		}
	}
	return out
}

// content sums the tables up. When a range was committed, and in how many rows of which
// commits a window stands, a repair does not bring back.
func (b *verifyBench) content() string {
	b.T.Helper()
	var sums []string
	for _, from := range []string{
		"* FROM flows", "* FROM quarantine", "* EXCEPT committed FROM batches FINAL", "* EXCEPT corrections FROM windows_traffic_1m_merged",
		"* EXCEPT corrections FROM windows_services_1m_merged", "* EXCEPT corrections FROM windows_rules_5m_merged",
	} {
		columns, table, _ := strings.Cut(from, " FROM ")
		sums = append(sums, table+" "+b.Ask("SELECT count(), sum(cityHash64("+columns+")) FROM millrace."+table))
	}
	return strings.Join(sums, "\n")
}

// spoil does all of it. Blobs are those of one shard after the other, so that windows
// have rows of spoiled and of good ones.
func (b *verifyBench) spoil() *spoiled {
	b.T.Helper()
	s := &spoiled{defects: map[string]func(verify.Finding) bool{}, kinds: map[verify.Kind]int64{}}
	s.before = b.content()
	blobs := slices.Sorted(maps.Keys(b.truth.Blobs))
	of := func(i int) string { return "blob = " + schemas.QuoteString(blobs[i]) }
	one := func(i int, skip int) string {
		return fmt.Sprintf("%s AND (record_offset, ordinal) IN (SELECT record_offset, ordinal FROM millrace.flows WHERE %[1]s ORDER BY record_offset, ordinal LIMIT 1 OFFSET %d)", of(i), skip)
	}
	defect := func(name string, kind verify.Kind, is func(f verify.Finding) bool) {
		s.defects[name] = func(f verify.Finding) bool { return f.Kind == kind && is(f) }
		s.kinds[kind]++
	}
	in := func(i int, count int64) func(f verify.Finding) bool {
		return func(f verify.Finding) bool {
			return f.Blob == blobs[i] && f.Count == count && f.Length > 0 && f.Batch > 0
		}
	}

	b.alter("flows DELETE WHERE " + one(0, 7))
	defect("a deleted row", verify.MissingRows, in(0, 1))

	s.lost, s.batch = blobs[1], b.Ask("SELECT max(batch_id) FROM millrace.flows WHERE "+of(1))
	units := b.Number(fmt.Sprintf("SELECT count() FROM millrace.batches FINAL WHERE %s AND batch_id = %s AND rows > 0", of(1), s.batch))
	b.alter("flows DELETE WHERE " + of(1) + " AND batch_id = " + s.batch)
	defect("a commit's rows", verify.MissingRows, func(f verify.Finding) bool { return f.Blob == blobs[1] && fmt.Sprint(f.Batch) == s.batch })
	s.kinds[verify.MissingRows] += int64(units) - 1

	b.Ask("CREATE TABLE millrace.copy AS millrace.flows")
	b.Ask("INSERT INTO millrace.copy SELECT * FROM millrace.flows WHERE " + of(2) + " AND batch_id = (SELECT min(batch_id) FROM millrace.flows WHERE " + of(2) + ")")
	doubled := b.Number("SELECT count() FROM millrace.batches FINAL WHERE " + of(2) + " AND batch_id = (SELECT min(batch_id) FROM millrace.flows WHERE " + of(2) + ") AND rows > 0")
	b.Ask("ALTER TABLE millrace.flows ATTACH PARTITION " + b.Ask("SELECT any(_partition_id) FROM millrace.copy") + " FROM millrace.copy")
	b.Ask("DROP TABLE millrace.copy")
	defect("a doubled part", verify.SurplusRows, func(f verify.Finding) bool { return f.Blob == blobs[2] })
	s.kinds[verify.SurplusRows] += int64(doubled) - 1

	b.alter("flows UPDATE bytes_sent = bytes_sent + 1 WHERE " + one(3, 11))
	defect("an altered counter", verify.AlteredRows, in(3, 1))
	b.alter("flows UPDATE ordinal = 5000 WHERE " + one(4, 3))
	defect("an altered address", verify.AlteredRows, func(f verify.Finding) bool {
		return in(4, 1)(f) && strings.Contains(f.Detail, "its address was altered")
	})

	b.alter("batches DELETE WHERE " + of(5) + " AND batch_id = (SELECT max(batch_id) FROM millrace.flows WHERE " + of(5) + ")")
	defect("a hole in batches", verify.UnknownCommit, func(f verify.Finding) bool { return f.Blob == blobs[5] && f.Table == "flows" })

	malformed := b.truth.Malformed[0]
	b.alter(fmt.Sprintf("quarantine DELETE WHERE blob = %s AND record_offset = %d AND ordinal = %d", schemas.QuoteString(malformed.Blob), malformed.RecordOffset, malformed.Ordinal))
	defect("a lost entry of quarantine", verify.MissingQuarantine, func(f verify.Finding) bool { return f.Blob == malformed.Blob && f.Count == 1 && len(f.Addresses) == 1 })

	b.Ask("INSERT INTO millrace.flows SELECT * REPLACE ('account/container/nobody' AS blob) FROM (SELECT * FROM millrace.flows WHERE " + of(6) + " AND batch_id = (SELECT max(batch_id) FROM millrace.flows WHERE " + of(6) + ") LIMIT 3)")
	defect("rows of no blob", verify.ForeignRows, func(f verify.Finding) bool { return f.Blob == "account/container/nobody" && f.Count == 3 })
	b.Ask("INSERT INTO millrace.flows SELECT * REPLACE (bitShiftLeft(toUInt64(99), 48) + 5 AS batch_id) FROM (SELECT * FROM millrace.flows WHERE " + one(6, 0) + ")")
	defect("rows of a foreign ledger", verify.ForeignRows, func(f verify.Finding) bool { return f.Blob == blobs[6] && f.Batch>>48 == 99 })

	window := func(table string, skip int) string {
		return fmt.Sprintf("(batch_id, window_start, rows) IN (SELECT batch_id, window_start, rows FROM millrace.%s GROUP BY ALL HAVING count() = 1 ORDER BY ALL LIMIT 1 OFFSET %d)", table, skip)
	}
	in2 := func(table string) func(f verify.Finding) bool {
		return func(f verify.Finding) bool { return f.Table == table && f.Window != nil && !f.Uncertain }
	}
	b.alter("windows_traffic_1m UPDATE bytes_sent = bytes_sent + 1 WHERE " + window("windows_traffic_1m", 2))
	defect("a changed window", verify.ChangedWindow, in2("windows_traffic_1m"))
	b.Ask("INSERT INTO millrace.windows_services_1m SELECT * FROM millrace.windows_services_1m WHERE " + window("windows_services_1m", 3))
	defect("a doubled window", verify.DoubledWindow, in2("windows_services_1m"))
	b.alter("windows_rules_5m DELETE WHERE " + window("windows_rules_5m", 1))
	defect("a missing window", verify.MissingWindow, in2("windows_rules_5m"))

	b.overwrite(blobs[7], `{"records":[{"time":"2026-01-01T00:00:00Z"}]}`)
	defect("a rewritten blob", verify.Rewritten, func(f verify.Finding) bool { return f.Blob == blobs[7] && f.Batch > 0 })
	s.gone = blobs[8]
	b.remove(s.gone)
	return s
}

// Days that people have deleted, and told of, stay away: a start with commits in doubt,
// a backfill and a repair land nothing of them again, unless the record is taken back.
func TestForget(t *testing.T) {
	b := &verifyBench{world: newWorld(t, "sweeper: {interval: 1s, discover: 1s}\n"), hour: time.Now().UTC().Truncate(time.Hour).Add(-60 * time.Hour)}
	old := b.past(b.Blobs, b.hour, b.hour.Add(10*time.Minute), 0)
	day := b.hour.Format(time.DateOnly)
	period := []string{"backfill", "--from", day, "--to", b.hour.AddDate(0, 0, 1).Format(time.DateOnly), "--yes"}
	if _, result := b.land(period...); result.Rows != old.Totals.Tuples {
		t.Fatalf("backfill: %+v", result)
	}
	b.want("after a backfill", b.verify(verify.Full), nil)

	b.Must("forget", "--partition", day, "--why", "retention", "--drop", "--yes")
	if n := b.Number("SELECT count() FROM millrace.flows"); n != 0 {
		t.Errorf("%d rows behind a drop", n)
	}
	if _, result := b.land(period...); result.Rows != 0 {
		t.Errorf("a backfill of forgotten days landed %d rows", result.Rows)
	}
	for _, level := range []verify.Level{verify.Quick, verify.Full} {
		r := b.verify(level)
		b.want("forgotten", r, nil)
		rows := int64(0)
		for _, e := range r.Expired {
			if e.Table == "flows" && e.Why == verify.ByPeople {
				rows += e.Rows
			}
		}
		if rows != int64(old.Totals.Tuples) {
			t.Errorf("%s: %d rows are expired, want %d: %+v", level, rows, old.Totals.Tuples, r.Expired)
		}
	}
	if done := b.repair(); len(done.Steps) > 0 || b.Number("SELECT count() FROM millrace.flows") > 0 {
		t.Errorf("a repair of forgotten days did %+v", done.Steps)
	}

	b.doubt()

	// Whoever asks for the rows gets them.
	b.hour = b.hour.Add(-59 * time.Hour)
	for line := range strings.Lines(b.Must("forget", "--list")) {
		if strings.Contains(line, day) {
			b.Must("forget", "--undo", strings.Fields(line)[0])
		}
	}
	if r := b.verify(verify.Quick); r.Found[verify.MissingRows] == 0 || len(r.Expired) > 0 {
		t.Errorf("a record that was taken back: %v, %+v", r.Found, r.Expired)
	}
	b.want("landed again", b.repair().After, nil)
	if n := b.Number(fmt.Sprintf("SELECT count() FROM millrace.flows WHERE toYYYYMMDD(time) = %s", strings.ReplaceAll(day, "-", ""))); n != old.Totals.Tuples {
		t.Errorf("%d rows, want %d", n, old.Totals.Tuples)
	}
}

// doubt stops the live pipeline where rows of a commit are there and its ledger does
// not say so yet, has the day deleted, and starts it again: it asks for the rows, finds
// none, and takes them for landed.
func (b *verifyBench) doubt() {
	b.T.Helper()
	b.hour = b.hour.Add(59 * time.Hour)
	for try := 1; ; try++ {
		b.past(b.Blobs, b.hour, b.hour.Add(time.Duration(try)*2*time.Minute), 0)
		before := b.Number("SELECT count() FROM millrace.flows")
		b.liveAt(0, before+1)
		if b.verify(verify.Quick).Pending.Rows > 0 {
			break
		}
		if try == 20 {
			b.T.Fatal("the pipeline is never stopped between rows and ledger")
		}
	}
	batches := strings.Join(strings.Fields(b.Ask("SELECT DISTINCT batch_id FROM millrace.flows")), ",")
	b.Must("forget", "--partition", b.hour.Format("20060102"), "--why", "a test", "--drop", "--yes")
	b.run().drain()
	if n := b.Number("SELECT count() FROM millrace.flows WHERE batch_id IN (" + batches + ")"); n != 0 {
		b.T.Errorf("%d rows of commits in doubt came back", n)
	}
	r := b.verify(verify.Full)
	if !r.Exact || r.Pending.Batches > 0 {
		b.show(r)
		b.T.Errorf("behind a start: %v, pending %+v", r.Found, r.Pending)
	}
}
