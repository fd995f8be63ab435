package quarantine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/millrace/millrace/cmd/internal/reread"
	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/operators/window"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/engine"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/clickhouse"
)

// killable is a Sink whose process dies at a landing.
type killable struct {
	pipeline.Sink
	before func() error
}

func (k *killable) Land(ctx context.Context, b pipeline.BatchID, epoch uint64, p pipeline.Piece) error {
	if k.before != nil {
		if err := k.before(); err != nil {
			return err
		}
	}
	return k.Sink.Land(ctx, b, epoch, p)
}

// server is a world on a real ClickHouse.
type server struct {
	*world
	sink *clickhouse.Sink
	kill *killable
}

func newServer(t *testing.T) *server {
	url, _ := localtest.StartClickHouse(t)
	op, err := window.New(window.DefaultWindows(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer op.Release()
	cfg := clickhouse.DefaultConfig()
	cfg.URL = url
	sink, err := clickhouse.New(cfg, append([]schemas.Table{schemas.Flows, schemas.Quarantine}, op.Tables()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sink.Close() })
	if err := sink.Setup(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	conn, err := sink.Conn()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{world: newWorld(t), sink: sink, kill: &killable{Sink: sink}}
	s.deps.Table, s.deps.Checkpoints = NewTable(conn), sink
	s.deps.Sinks = []engine.NamedSink{{Sink: s.kill}}
	s.deps.Register = func(ctx context.Context, name string, shards int) (uint16, error) {
		return sink.RegisterLedger(ctx, name, shards, true)
	}
	return s
}

// insert writes the entries that tests made into the table quarantine.
func (s *server) insert() {
	s.t.Helper()
	var values []string
	for _, e := range s.target.entries {
		values = append(values, fmt.Sprintf("(%d, %s, %s, %s, %s, %d, %d, %d, %d, %s, %d)", e.Time.UnixMilli(), schemas.QuoteString(string(e.Reason)), schemas.QuoteString(e.Detail),
			schemas.QuoteString(e.Scope), schemas.QuoteString(e.Blob), e.Generation, e.Offset, e.Ordinal, e.Length, schemas.QuoteString(e.Excerpt), e.Batch))
	}
	s.ask("INSERT INTO quarantine SELECT fromUnixTimestamp64Milli(toInt64(c1)), c2, c3, c4, c5, c6, c7, c8, c9, c10, c11 " +
		"FROM values('c1 Int64, c2 String, c3 String, c4 String, c5 String, c6 UInt32, c7 UInt64, c8 UInt32, c9 UInt64, c10 String, c11 UInt64', " + strings.Join(values, ", ") + ")")
	s.target.entries = nil
}

func (s *server) ask(sql string) string {
	s.t.Helper()
	text, err := s.sink.Exec(s.t.Context(), sql)
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(text)
}

// once checks rows, addresses and the rows in each table of windows.
func (s *server) once(rows int) {
	s.t.Helper()
	got := s.ask(`SELECT (SELECT count() FROM flows), (SELECT uniqExact(blob, generation, record_offset, ordinal) FROM flows),
		(SELECT sum(rows) FROM windows_traffic_1m), (SELECT sum(rows) FROM windows_services_1m), (SELECT sum(rows) FROM windows_rules_5m), (SELECT sum(rows) FROM batches FINAL)`)
	want := strings.TrimSpace(strings.Repeat(fmt.Sprintf("%d\t", rows), 6))
	if got != want {
		s.t.Errorf("rows, addresses, rows in windows, in batches: %q, want %q", got, want)
	}
}

func TestReplayOnClickHouse(t *testing.T) {
	s := newServer(t)
	_, _, e := oneRecord(s.world)
	odd := pipeline.BlobID{Account: "acc", Container: "logs", Path: "a#replay=x-0-12-1-0/odd 'name\\\n.json"}
	text := recordText(tuple(0), tuple(1))
	whole := s.refuseWhole("record", odd, s.write(odd, text)[0], text)
	gone := s.refuse(nic(9), 12, 0, tuple(0))
	s.insert()
	s.once(2)
	want := map[Entry]string{
		e[0]: "would land 1+0", e[1]: "would land 1+0", e[2]: "still refused 0+1", whole: "would land 2+0", gone: "source expired 0+0",
	}
	s.expect(s.replay(Filter{}, true), want)
	s.once(2)

	// Killed between intent and landing: of the pieces, one is there.
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	s.kill.before = func() error {
		if n++; n > 1 {
			cancel()
			return pipeline.ErrTransient
		}
		return nil
	}
	s.deps.Config.MaxLands = 1
	if err := Replay(ctx, s.deps, Filter{}, false, func(Verdict) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	s.kill.before = nil
	half := s.ask(`SELECT (SELECT count() FROM flows) + (SELECT sum(rows) FROM windows_traffic_1m) +
		(SELECT sum(rows) FROM windows_services_1m) + (SELECT sum(rows) FROM windows_rules_5m)`)
	if half != "12" { // 4 tables with 2 rows each before, with 6 each afterwards
		t.Errorf("the kill left %s rows in the tables, want 12: one piece landed", half)
	}

	want = map[Entry]string{
		e[0]: "already landed 0+0", e[1]: "already landed 0+0", e[2]: "still refused 0+1", whole: "already landed 0+0", gone: "source expired 0+0",
	}
	s.expect(s.replay(Filter{}, false), want)
	s.once(6)
	s.expect(s.replay(Filter{}, false), want)
	s.once(6)
	if got := s.ask("SELECT count() FROM quarantine"); got != "5" {
		t.Errorf("%s entries are left, want all 5", got)
	}
	// A late entry, and a rewritten blob.
	last := s.refuse(nic(1), 12, 0, tuple(9))
	s.insert()
	s.expect(s.replay(Filter{Addresses: []reread.Address{address(t, last)}}, false), map[Entry]string{last: "landed 1+0"})
	s.once(7)
	s.ask("INSERT INTO batches (batch_id, committed, blob, generation, offset, length, hash, rows, quarantined) VALUES (1, now(), '" + nic(1).String() + "', 1, 12, 100, '', 0, 0)")
	s.expect(s.replay(Filter{Addresses: []reread.Address{address(t, e[0])}}, true), map[Entry]string{e[0]: "source expired 0+0"})
}

func address(t *testing.T, e Entry) reread.Address {
	t.Helper()
	a, err := reread.ParseAddress(e.Address)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestEntriesOnClickHouse(t *testing.T) {
	s := newServer(t)
	var all []Entry
	for i := range 9 {
		all = append(all, s.put(Entry{
			Reason: Reasons[i%3], Detail: fmt.Sprint("detail ", i), Scope: "tuple", Blob: nic(i / 3).String(), Generation: uint32(i % 2), Offset: 12, Ordinal: uint32(i), Length: 5,
			Excerpt: "\x1b[31m \" ' \\ é",
		}))
	}
	// Entries that differ in scope or reason alone, and one that is there twice.
	same := Entry{Reason: Reasons[4], Scope: "range", Blob: "acc/logs/z", Offset: 7, Length: 5}
	for _, scope := range []string{"range", "record", "record"} {
		same.Scope = scope
		all = append(all, s.put(same))
	}
	s.insert()
	ctx := t.Context()
	var got []Entry
	for after := (*Entry)(nil); ; after = &got[len(got)-1] {
		page, err := s.deps.Table.Entries(ctx, Filter{}, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		got = append(got, page...)
	}
	byAddress := cmpopts.SortSlices(func(a, b Entry) bool { return a.Address+a.Scope < b.Address+b.Scope })
	if diff := cmp.Diff(all, got, byAddress); diff != "" {
		t.Errorf("page by page (-want +got):\n%s", diff)
	}

	for name, c := range map[string]struct {
		filter Filter
		want   int
	}{
		"reason":    {Filter{Reason: Reasons[1]}, 3},
		"blob":      {Filter{Blob: "macAddress=000000000001"}, 3},
		"both":      {Filter{Reason: Reasons[1], Blob: "macAddress=000000000001"}, 1},
		"quote":     {Filter{Blob: `'" OR 1 --`}, 0},
		"tuple":     {Filter{Addresses: []reread.Address{address(t, all[4])}}, 1},
		"record":    {Filter{Addresses: []reread.Address{{Blob: nic(1), Generation: 1, Offset: 12, Ordinal: -1}}}, 2},
		"two":       {Filter{Addresses: []reread.Address{address(t, all[4]), address(t, all[9])}}, 4},
		"no record": {Filter{Addresses: []reread.Address{{Blob: nic(1), Generation: 1, Offset: 13, Ordinal: -1}}}, 0},
	} {
		entries, err := s.deps.Table.Entries(ctx, c.filter, nil, 100)
		if err != nil || len(entries) != c.want {
			t.Errorf("%s: %d entries, want %d (%v)", name, len(entries), c.want, err)
		}
	}

	defer func() {
		s.ask("DROP TABLE quarantine")
		if _, err := s.deps.Table.Counts(ctx, Filter{}); err == nil || !strings.Contains(err.Error(), "run the pipeline first") {
			t.Errorf("without the table: %v", err)
		}
	}()
	counts, err := s.deps.Table.Counts(ctx, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, c := range counts {
		text = append(text, fmt.Sprintf("%s %d %s", c.Reason, c.Entries, c.Newest.Detail))
	}
	want := []string{"json_syntax 3 detail 6", "json_truncated 3 detail 7", "record_shape 3 detail 8", "tuple_field_count 3 "}
	if diff := cmp.Diff(want, text); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

// The poison of TestPoison, landed in ClickHouse: the same rows, the same entries. An
// excerpt that is cleared, as a bound on quarantine does, takes no entry with it.
func TestPoisonOnClickHouse(t *testing.T) {
	s := newServer(t)
	m := newMeal(s.world)
	m.sinks = []engine.NamedSink{{Name: "server", Sink: s.sink}}
	kinds := m.cook()
	m.eat(t)
	m.judge(t)
	conn, err := s.sink.Conn()
	if err != nil {
		t.Fatal(err)
	}
	count := func(sql string) (n uint64) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), sql).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	entries := uint64(len(kinds))
	if rows, twice := count("SELECT count() FROM flows"), count("SELECT toUInt64(count() - uniqExact(blob, record_offset, ordinal)) FROM flows"); rows != uint64(len(m.wanted)) || twice != 0 {
		t.Errorf("%d rows, %d twice, want %d", rows, twice, len(m.wanted))
	}
	if n := count("SELECT sum(rows) FROM windows_traffic_1m"); n != uint64(len(m.wanted)) {
		t.Errorf("windows count %d rows, want %d", n, len(m.wanted))
	}
	if n := count("SELECT uniqExact(blob, record_offset, ordinal, reason) FROM quarantine WHERE excerpt != '' OR length = 0"); n != entries || count("SELECT count() FROM quarantine") != entries {
		t.Errorf("%d entries, want %d", n, entries)
	}
	bound, err := clickhouse.NewExcerpts(s.sink, 1, clickhouse.ExcerptsDeps{Meter: noop.Meter{}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := bound.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, n := count("SELECT count() FROM quarantine WHERE excerpt != ''"), count("SELECT count() FROM quarantine WHERE detail != ''"); left != 0 || n < entries/2 || count("SELECT count() FROM quarantine") != entries {
		t.Errorf("%d excerpts are left, %d details: want none and most", left, n)
	}
	m.w.target.live = false
	refused := 0
	for _, v := range s.replay(Filter{}, false) {
		if v.Outcome == Refused {
			refused++
		}
	}
	if refused != len(kinds) {
		t.Errorf("a replay refuses %d entries without excerpts, want %d", refused, len(kinds))
	}
}
