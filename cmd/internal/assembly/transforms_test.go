package assembly_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/cmd/internal/jobtest"
	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/pipeline/pipelinetest"
)

// replace writes a file as a careful person does: whole or not at all.
func replace(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// Published samples go through filters and enrichment into the table; a names file
// that changes counts from the next commit on, a broken one is refused, and the
// numbers add up.
func TestFiltersAndEnrichmentInTheWholeJob(t *testing.T) {
	assembly.LookAtFilesEvery(t, 50*time.Millisecond)
	countries := pipelinetest.RequirePart(t, localtest.EnvCountries)
	names := filepath.Join(t.TempDir(), "names.csv")
	version := func(owner string) {
		replace(t, names, "cidr,owner,subnet\n0.0.0.0/0,"+owner+",\n10.0.0.0/8,,inside\n::/0,"+owner+",\n")
	}
	version("one")
	w := newWorld(t, jobtest.SweeperOff)
	plain := w.YAML
	w.YAML += fmt.Sprintf(`
filters:
  - {name: secure_web, drop: true, dst_port: [443]}
  - {name: replies, drop: true, src_port: [443]}
enrich: {names_file: %s, country_file: %s}
windows:
  - {name: countries, size: 1m, group_by: [dst_country, src_class, direction], sums: [bytes_sent]}
`, names, countries)
	samples := sampleBlobs(t, time.Now().UTC().Truncate(time.Hour).Add(-time.Hour))
	r := w.run()
	total := 0
	next := func() {
		t.Helper()
		s := samples[0]
		samples = samples[1:]
		total += s.rows
		w.grow(s, func(etag string, length int) { w.announce(s, etag, length) })
		w.WaitUntil("every row has landed or was filtered", func() bool {
			s := r.p.Engine.Status()
			return s.Landed+s.Filtered == int64(total)
		})
	}
	next()
	if got := w.Ask("SELECT groupUniqArray(src_owner) FROM millrace.flows"); got != "['one']" {
		t.Errorf("owners %s, want that of the first names file", got)
	}
	version("two")
	for w.Ask("SELECT count() > 0 FROM millrace.flows WHERE src_owner = 'two'") == "0" {
		if len(samples) == 2 {
			t.Fatal("the second names file never counted")
		}
		next()
	}
	replace(t, names, "cidr,owner\n10.0.0.0/8,three\n10.0.0.0/8,three\n")
	for len(samples) > 1 {
		next()
	}
	r.drain()
	for sql, want := range map[string]string{
		"SELECT count() FROM millrace.flows WHERE 443 IN (src_port, dst_port)":                                                "0",
		"SELECT countIf(src_owner = 'three'), countIf(src_owner = '') FROM millrace.flows":                                    "0\t0",
		"SELECT countIf((src_subnet = 'inside') != startsWith(IPv6NumToString(src_ip), '::ffff:10.')) FROM millrace.flows":    "0",
		"SELECT countIf(dst_country != '' AND dst_class != 'public'), countIf(dst_country != '') > 0 FROM millrace.flows":     "0\t1",
		"SELECT sum(rows) = (SELECT count() FROM millrace.flows), sum(filtered) > 0 FROM millrace.batches FINAL":              "1\t1",
		"SELECT sum(rows + filtered + quarantined) FROM millrace.batches FINAL":                                               fmt.Sprint(total),
		"SELECT sum(rows) = (SELECT count() FROM millrace.flows) FROM millrace.windows_countries":                             "1",
		"SELECT uniqExact(dst_country) = (SELECT uniqExact(dst_country) FROM millrace.flows) FROM millrace.windows_countries": "1",
		jobtest.AddressesTwice: "0",
	} {
		if got := w.Ask(sql); got != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}

	// Without the sections, rows land as they were logged, in the same table.
	w.YAML = plain
	before := w.Ask("SELECT count() FROM millrace.flows")
	r = w.run()
	s := samples[0]
	w.grow(s, func(etag string, length int) { w.announce(s, etag, length) })
	w.WaitFor("SELECT count() FROM millrace.flows WHERE src_owner = '' AND src_class = ''", fmt.Sprint(s.rows))
	r.drain()
	if got := w.Ask("SELECT count() FROM millrace.flows"); got == before {
		t.Errorf("%s rows, as before", got)
	}
	if lines := strings.Split(w.Ask("SELECT name FROM system.columns WHERE database = 'millrace' AND table = 'flows'"), "\n"); len(lines) != 50 {
		t.Errorf("%d columns, want 50", len(lines))
	}
}
