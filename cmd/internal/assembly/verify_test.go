package assembly_test

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/cmd/internal/verify"
)

// verifyBench is a world whose pipeline has landed half an hour of an estate.
type verifyBench struct {
	*world
	hour  time.Time
	truth traffic.Truth
}

func newVerifyBench(t *testing.T) *verifyBench {
	b := &verifyBench{world: newWorld(t, "sweeper: {interval: 1s, discover: 1s}\n"), hour: time.Now().UTC().Truncate(time.Hour).Add(-time.Hour)}
	b.truth = b.past(b.Blobs, b.hour, b.hour.Add(30*time.Minute), 20_000)
	r := b.run()
	b.WaitFor("SELECT count() FROM millrace.flows", fmt.Sprint(b.truth.Totals.Tuples))
	r.drain()
	return b
}

func (b *verifyBench) deps() verify.Deps {
	b.T.Helper()
	p, deps, err := assembly.OpenVerify(b.T.Context(), b.Config(), assembly.Deps{Meter: metricnoop.Meter{}, Tracer: tracenoop.Tracer{}, Logger: slog.New(slog.NewTextHandler(b.T.Output(), nil))})
	if err != nil {
		b.T.Fatal(err)
	}
	b.T.Cleanup(p.Close)
	return deps
}

// verify compares the bench's hour.
func (b *verifyBench) verify(level verify.Level) *verify.Result {
	b.T.Helper()
	r, err := verify.Run(b.T.Context(), b.deps(), verify.Options{From: b.hour, To: b.hour.Add(time.Hour), Level: level})
	if err != nil {
		b.T.Fatal(err)
	}
	return r
}

func (b *verifyBench) show(r *verify.Result) {
	if err := (verify.Printer{Out: b.T.Output()}).Result(r); err != nil {
		b.T.Fatal(err)
	}
}

func TestVerifyQuick(t *testing.T) {
	b := newVerifyBench(t)
	r := b.verify(verify.Quick)
	b.show(r)
	if !r.Exact || r.Rows != int64(b.truth.Totals.Tuples) || r.Quarantined != int64(b.truth.Totals.Malformed) || r.Windows == 0 {
		t.Errorf("%+v", r)
	}
	alter := func(sql string) { b.Ask("ALTER TABLE millrace." + sql + " SETTINGS mutations_sync = 2") }
	alter("flows DELETE WHERE (blob, record_offset, ordinal) IN (SELECT blob, record_offset, ordinal FROM millrace.flows ORDER BY blob, record_offset, ordinal LIMIT 1)")
	b.Ask("INSERT INTO millrace.flows SELECT * FROM millrace.flows WHERE batch_id = (SELECT max(batch_id) FROM millrace.flows) LIMIT 3")
	alter("windows_traffic_1m UPDATE bytes_sent = bytes_sent + 1 WHERE (mac, window_start) IN (SELECT mac, window_start FROM millrace.windows_traffic_1m ORDER BY mac, window_start LIMIT 1)")
	r = b.verify(verify.Quick)
	b.show(r)
	if r.Exact || r.Found[verify.MissingRows] != 1 || r.Found[verify.SurplusRows] != 1 || r.Found[verify.ChangedWindow] == 0 || len(r.Found) != 3 {
		t.Errorf("found %v", r.Found)
	}
}
