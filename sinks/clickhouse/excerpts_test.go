package clickhouse

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/secret"
	"github.com/millrace/millrace/schemas"
)

func bounded(t *testing.T, s *Sink, most int64) *Excerpts {
	t.Helper()
	e, err := NewExcerpts(s, most, ExcerptsDeps{Meter: noop.Meter{}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// refuse fills a day of quarantine on a server.
func refuse(t *testing.T, n *node, day, entries int) {
	t.Helper()
	_, err := n.exec(t.Context(), n.config.Database, fmt.Sprintf(`INSERT INTO %s (time, reason, detail, scope, blob, record_offset, length, excerpt)
SELECT toDateTime64('2026-11-%02d 07:00:00', 3, 'UTC'), 'json_syntax', 'what was wrong', 'record', 'a/c/p', number, 300, randomPrintableASCII(256) FROM numbers(%d)`,
		n.name("quarantine"), day, entries))
	if err != nil {
		t.Fatal(err)
	}
}

const entriesByDay = "SELECT toDayOfMonth(time), count(), countIf(excerpt != ''), uniqExact(reason, detail, blob, record_offset, length) FROM quarantine GROUP BY 1 ORDER BY 1"

// Past the bound the oldest excerpts go, whatever the kind of part; entries stay, and
// landing goes on.
func TestExcerptsAreBounded(t *testing.T) {
	for kind, setting := range map[string]string{"compact": "1000000000", "wide": "0"} {
		t.Run(kind, func(t *testing.T) {
			s := ready(t, schemas.Quarantine)
			ask(t, s, "ALTER TABLE quarantine MODIFY SETTING min_bytes_for_wide_part = "+setting)
			for day := 1; day <= 4; day++ {
				refuse(t, s.first, day, 1000)
			}
			e := bounded(t, s, 600_000) // two days and a little
			want := "1\t1000\t0\t1000\n2\t1000\t0\t1000\n3\t1000\t1000\t1000\n4\t1000\t1000\t1000"
			for range 2 { // the second finds nothing to do
				if err := e.Trim(t.Context()); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, ask(t, s, entriesByDay)); diff != "" {
					t.Errorf("day, entries, excerpts, addresses (-want +got):\n%s", diff)
				}
			}
			if got := e.size.Load(); got < 400_000 || got > 600_000 {
				t.Errorf("%d bytes of excerpts, want those of two days", got)
			}
			refuse(t, s.first, 1, 1000)
			refuse(t, s.first, 5, 1000)
			if err := e.Trim(t.Context()); err != nil {
				t.Fatal(err)
			}
			want = "1\t2000\t0\t1000\n2\t1000\t0\t1000\n3\t1000\t0\t1000\n4\t1000\t1000\t1000\n5\t1000\t1000\t1000"
			if diff := cmp.Diff(want, ask(t, s, entriesByDay)); diff != "" {
				t.Errorf("later: day, entries, excerpts, addresses (-want +got):\n%s", diff)
			}
			if err := s.LandBatches(t.Context(), []pipeline.Manifest{{Units: make([]pipeline.Unit, 1)}}); err != nil {
				t.Error(err)
			}
		})
	}
}

// Who may not clear excerpts is told which right is missing, and lands all the same;
// the right that is named is enough.
func TestExcerptsNeedARight(t *testing.T) {
	admin, ch := strangeServer(t)
	admin.Database = config(t, ch.HTTPURL).Database
	s := open(t, admin, schemas.Quarantine)
	if err := s.Setup(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	as := func(user string) *Sink {
		c := admin
		c.User, c.Password = user, secret.Secret{}
		return open(t, c, schemas.Quarantine)
	}
	refuse(t, s.first, 1, 10)
	lander := as("lander")
	err := bounded(t, lander, 1).Trim(t.Context())
	if err == nil || !strings.Contains(err.Error(), "GRANT ALTER CLEAR COLUMN ON `"+admin.Database+"`.`quarantine` TO `lander`") {
		t.Errorf("without the right: %v", err)
	}
	refuse(t, lander.first, 1, 10)
	if err := bounded(t, as("clearer"), 1).Trim(t.Context()); err != nil {
		t.Error(err)
	}
	if got, want := ask(t, s, entriesByDay), "1\t20\t0\t10"; got != want {
		t.Errorf("day, entries, excerpts, addresses: %q, want %q", got, want)
	}
}

// In a cluster each server has the bound to itself.
func clusterExcerpts(t *testing.T, d *duo) {
	s := open(t, d.config(0, 1), schemas.Quarantine)
	if err := s.Setup(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for i, n := range s.nodes {
		refuse(t, n, 1, 1000)
		refuse(t, n, 2, 1000*i)
	}
	if err := bounded(t, s, 400_000).Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := ask(t, s, entriesByDay), "1\t2000\t1000\t1000\n2\t1000\t1000\t1000"; got != want {
		t.Errorf("day, entries, excerpts, addresses: %q, want %q", got, want)
	}
}
