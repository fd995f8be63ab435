package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/operators/enrich"
	"github.com/millrace/millrace/operators/filter"
)

// whole is a configuration without faults, to which tests add sections.
const whole = "state: x\nstart: now\naccounts: [{name: a, endpoint: 'https://a.blob.core.windows.net', containers: [logs], key: {env: KEY}}]\nclickhouse: {url: 'http://127.0.0.1:8123'}\n"

func TestFiltersAndEnrichment(t *testing.T) {
	c, err := config.Parse([]byte(whole + `
filters:
  - {name: dns, drop: true, either_port: [53, 8000-8999], protocol: [udp, 6]}
  - {name: rest, drop: false}
enrich: {}
windows: [{name: w, size: 1m, group_by: [dst_country, src_subnet]}]
`))
	if err != nil {
		t.Fatal(err)
	}
	yes, no := true, false
	want := []filter.Config{{Name: "dns", Drop: &yes, EitherPort: []string{"53", "8000-8999"}, Protocol: []string{"udp", "6"}}, {Name: "rest", Drop: &no}}
	if diff := cmp.Diff(want, c.Filters); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(&enrich.Config{}, c.Enrich); diff != "" {
		t.Error(diff)
	}
	if c.FlowTable().Bare {
		t.Error("the table has no columns for enrichment")
	}
}

func TestFaultsOfFiltersAndEnrichment(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	_, err := config.Parse([]byte(whole + `
filters: [{name: a, dst_port: [99999]}]
windows: [{name: w, size: 1m, group_by: [mac, dst_country], distinct: [src_owner]}]
`))
	for _, want := range []string{
		"filters[0].drop: missing", "filters[0].dst_port[0]: ",
		`windows[0].group_by[1]: "dst_country" comes with enrichment: add the section enrich, such as enrich: {}`, `windows[0].distinct[0]: "src_owner"`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if _, err := config.Parse([]byte(whole + "enrich: {name_file: x}\n")); err == nil || !strings.Contains(err.Error(), `unknown key "name_file"`) && !strings.Contains(err.Error(), "unknown key") {
		t.Errorf("an unknown key: %v", err)
	}
	yes := true
	c := config.Config{
		Filters: []filter.Config{{Name: "a", Drop: &yes, SrcFile: write("cidrs", "10.0.0.0/8\nx\n"), DstFile: filepath.Join(dir, "none")}},
		Enrich:  &enrich.Config{NamesFile: write("names", "cidr\n10.0.0.1/8\n"), CountryFile: write("countries", "x")},
	}
	if _, err := c.OpenFilters(); err == nil || !strings.Contains(err.Error(), "filters: open ") {
		t.Errorf("a file that is not there: %v", err)
	}
	c.Filters[0].DstFile = ""
	if _, err := c.OpenFilters(); err == nil || !strings.Contains(err.Error(), "line 2: ") {
		t.Errorf("a broken file: %v", err)
	}
	_, err = c.OpenEnrich()
	for _, want := range []string{"enrich.names_file: file ", "line 2: ", "enrich.country_file: file ", "no MaxMind DB file"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
