package window

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/schemas"
)

func TestDefaultWindowsAreValid(t *testing.T) {
	if err := Validate(DefaultWindows()); err != nil {
		t.Error(err)
	}
}

func TestValidateReportsEveryFault(t *testing.T) {
	many := make([]string, 17)
	for i := range many {
		many[i] = schemas.Flows.Columns[i%3+3].Name
	}
	err := Validate([]Config{
		{Name: "ok", Size: time.Hour},
		{
			Name: "Bad-Name", Size: 7 * time.Second, Lateness: -time.Second, MaxGroups: 400_001,
			GroupBy: []string{"mac", "mac", "time", "bytes_sent"}, Sums: []string{"src_port", "batch_id", "record_offset"},
			Distinct: []string{"batch_id", "nonsense"},
		},
		{Name: "ok", Size: 500 * time.Millisecond, Lateness: time.Microsecond, MaxGroups: -1},
		{Name: "x_merged", Size: 48 * time.Hour, GroupBy: many},
		{Name: "", Size: -24 * time.Hour},
	})
	if err == nil {
		t.Fatal("no faults found")
	}
	var got []string
	for _, line := range strings.Split(err.Error(), "\n") {
		key, _, _ := strings.Cut(line, ": ")
		if n := len(got); n == 0 || got[n-1] != key {
			got = append(got, key)
		}
	}
	want := []string{
		"windows[1].name", "windows[1].size", "windows[1].lateness", "windows[1].max_groups",
		"windows[1].group_by[1]", "windows[1].group_by[2]", "windows[1].group_by[3]",
		"windows[1].sums[0]", "windows[1].sums[1]", "windows[1].sums[2]",
		"windows[1].distinct[0]", "windows[1].distinct[1]",
		"windows[2].name", "windows[2].size", "windows[2].lateness", "windows[2].max_groups",
		"windows[3].name", "windows[3].size", "windows[3].group_by",
	}
	for i := 3; i < 17; i++ {
		want = append(want, fmt.Sprintf("windows[3].group_by[%d]", i))
	}
	want = append(want, "windows[4].name", "windows[4].size")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("key paths (-want +got):\n%s", diff)
	}
	if _, err := New([]Config{{}}, nil); err == nil || !strings.HasPrefix(err.Error(), "make windows: windows[0].name: ") {
		t.Errorf("New of a faulty list: %v", err)
	}
}

// Every column that may be named works, and what is in a table passes the checks
// of schemas.
func TestEveryAllowedColumnMakesATable(t *testing.T) {
	names := func(allowed func(schemas.Column) bool) []string {
		return strings.Split(allowedColumns(allowed), ", ")
	}
	keys := []string{
		"cloud", "format", "mac", "src_ip", "dst_ip", "src_port", "dst_port", "protocol", "direction", "state", "action", "encryption", "acl_id", "rule", "rule_kind", "flow_log", "target", "blob",
		"subscription", "resource_group", "vnet", "subnet", "nic", "src_class", "dst_class", "src_name", "dst_name", "src_vnet", "dst_vnet", "src_subnet", "dst_subnet", "src_owner", "dst_owner", "src_tags", "dst_tags", "src_country", "dst_country", "src_asn", "dst_asn", "src_as_org", "dst_as_org",
	}
	want := map[string][]string{"group_by": keys, "sums": {"packets_sent", "bytes_sent", "packets_received", "bytes_received"}, "distinct": keys}
	got := map[string][]string{"group_by": names(canGroup), "sums": names(canSum), "distinct": names(canCountDistinct)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("allowed columns (-want +got):\n%s", diff)
	}
	for _, c := range append(lawWindows(), Config{Name: strings.Repeat("n", 48), Size: time.Second, GroupBy: want["group_by"][:16], Sums: want["sums"], Distinct: want["distinct"][:8]},
		Config{Name: "enriched", Size: time.Second, GroupBy: keys[len(keys)-16:], Distinct: keys[len(keys)-8:]}) {
		if err := Validate([]Config{c}); err != nil {
			t.Errorf("configuration of %s: %v", c.Name, err)
		}
		if err := c.Table().Validate(); err != nil {
			t.Errorf("table of %s: %v", c.Name, err)
		}
		if _, err := c.View().CreateSQL("db"); err != nil {
			t.Errorf("view of %s: %v", c.Name, err)
		}
	}
}
