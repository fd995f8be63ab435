package assembly

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metricnoop "go.opentelemetry.io/otel/metric/noop"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/operators/enrich"
	"github.com/millrace/millrace/operators/filter"
	"github.com/millrace/millrace/pipeline"
)

// A changed file counts once it has settled; one that cannot be used is refused and
// told once, and the old content stays; the files of filters change by themselves.
func TestFilesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	names, list := filepath.Join(dir, "names.csv"), filepath.Join(dir, "list.txt")
	clock := time.Now().Add(-time.Hour)
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		clock = clock.Add(time.Second) // whatever the file system's clock can tell apart
		if err := os.Chtimes(path, clock, clock); err != nil {
			t.Fatal(err)
		}
	}
	write(names, "cidr,name\n10.0.0.0/8,one\n")
	write(list, "10.0.0.0/8\n")
	yes := true
	var said bytes.Buffer
	p, err := openTransforms(config.Config{
		Filters: []filter.Config{{Name: "a", Drop: &yes, SrcFile: list}},
		Enrich:  &enrich.Config{NamesFile: names},
	}, Deps{Meter: metricnoop.Meter{}, Logger: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	version := func(r *reloaded) string { return pipeline.Hash(r.get().Recipe()) }
	look := func() {
		p.enrich.look(t.Context())
		p.filters.look(t.Context())
	}
	first, filters := version(p.enrich), version(p.filters)
	look()
	write(names, "cidr,name\n10.0.0.0/8,tw") // half written
	look()
	write(names, "cidr,name\n10.0.0.0/8,two\n")
	look()
	if version(p.enrich) != first {
		t.Error("a file that is still being written was read")
	}
	look()
	second := version(p.enrich)
	if second == first || version(p.filters) != filters {
		t.Errorf("versions %s, %s", second, version(p.filters))
	}
	write(names, "cidr,name\n10.0.0.1/8,three\n")
	for range 4 {
		look()
	}
	if version(p.enrich) != second || strings.Count(said.String(), "cannot be used") != 1 || !strings.Contains(said.String(), "line 2: ") {
		t.Errorf("version %s after a broken file; log:\n%s", version(p.enrich), said.String())
	}
	if err := os.Remove(names); err != nil {
		t.Fatal(err)
	}
	look()
	look()
	if version(p.enrich) != second || strings.Count(said.String(), "cannot be used") != 2 {
		t.Errorf("version %s after the file was removed; log:\n%s", version(p.enrich), said.String())
	}
	write(names, "cidr,name\n10.0.0.0/8,two\n") // the same content again
	write(list, "10.0.0.0/9\n")
	look()
	look()
	if version(p.enrich) != second || version(p.filters) == filters {
		t.Errorf("versions %s, %s", version(p.enrich), version(p.filters))
	}
	if n := strings.Count(said.String(), "are used from the next commit on"); n != 2 {
		t.Errorf("%d changes were told, want 2; log:\n%s", n, said.String())
	}
}

func TestTransformsThatAreOff(t *testing.T) {
	p, err := openTransforms(config.Config{}, Deps{Meter: metricnoop.Meter{}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, place := range p.list() {
		if place.Current() != nil {
			t.Errorf("%s is on", place.Name)
		}
	}
	p.watch(t.Context())()
	if _, err := openTransforms(config.Config{Enrich: &enrich.Config{NamesFile: "/nowhere/names.csv"}}, Deps{Meter: metricnoop.Meter{}}); err == nil || !strings.Contains(err.Error(), "enrich: open /nowhere/names.csv") {
		t.Errorf("a file that is not there: %v", err)
	}
}
