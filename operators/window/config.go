package window

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow/go/v17/arrow"

	"github.com/millrace/millrace/schemas"
)

// Config is one table of tumbling windows.
type Config struct {
	// Name: the table is windows_<name>. Lower-case letters, digits and _, at most 48,
	// not ending in _merged. Required.
	Name string `yaml:"name"`
	// Size of a window: whole seconds that divide a day, so that windows begin at
	// midnight UTC. Required.
	Size time.Duration `yaml:"size"`
	// GroupBy names columns of flows, those of enrichment too: texts, addresses, ports,
	// protocol, autonomous systems. Empty means one group a window, the
	// default. At most 16.
	GroupBy []string `yaml:"group_by"`
	// Sums names counters of flows to add up, modulo 2^64. Default none,
	// at most 16.
	Sums []string `yaml:"sums"`
	// Distinct names columns of flows whose distinct values are estimated (HyperLogLog,
	// standard error 2.3 %, at most 2 KiB a group). Default none,
	// at most 8.
	Distinct []string `yaml:"distinct"`
	// Lateness is how long a window stays open after the watermark passed its end: rows
	// that late need no correction row. 0 to 24 h, default 0.
	Lateness time.Duration `yaml:"lateness"`
	// MaxGroups bounds the state of a shard: the number of groups in all its open
	// windows. Once it is reached, the lighter half of them folds into one group a
	// window, which is written with overflow = 1: totals stay exact, the heavy keys stay.
	// 1 to 400,000; default, and for 0, 50,000.
	MaxGroups int `yaml:"max_groups"`
	// MaxStateMiB bounds the memory of these groups in the same way, with their texts
	// and sketches. 1 to 4,096 MiB; default, and for 0, 64.
	MaxStateMiB int `yaml:"max_state_mib"`
}

// Limits of a Config.
const (
	DefaultMaxGroups   = 50_000
	DefaultMaxStateMiB = 64
	// With one overflow group for each second of a day on top, a piece stays below
	// 500,000 rows.
	maxMaxGroups   = 400_000
	maxMaxStateMiB = 4096

	maxTables   = 64
	maxGroupBy  = 16
	maxSums     = 16
	maxDistinct = 8
	maxLateness = 24 * time.Hour
)

// DefaultWindows are the tables of a pipeline whose configuration names none.
// Each keeps the direction, because a flow that both ends log is two rows: count
// conversations by one direction.
func DefaultWindows() []Config {
	counters := []string{"packets_sent", "bytes_sent", "packets_received", "bytes_received"}
	return []Config{
		{
			Name: "traffic_1m", Size: time.Minute, MaxGroups: 20_000,
			GroupBy: []string{"mac", "direction", "action", "protocol"}, Sums: counters,
			Distinct: []string{"src_ip", "dst_ip"},
		},
		{
			Name: "services_1m", Size: time.Minute, MaxGroups: 100_000,
			GroupBy: []string{"dst_ip", "dst_port", "protocol", "direction", "action"}, Sums: counters,
		},
		{
			Name: "rules_5m", Size: 5 * time.Minute, MaxGroups: 20_000,
			GroupBy: []string{"acl_id", "rule", "direction", "action"}, Sums: counters,
		},
	}
}

var validName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,47}$`)

// Validate reports every fault of the list at once, each with its key path, such
// as windows[1].size.
func Validate(cfg []Config) error {
	var faults []error
	if len(cfg) > maxTables {
		faults = append(faults, fmt.Errorf("windows: %d tables, at most %d", len(cfg), maxTables))
	}
	names := map[string]int{}
	for i, c := range cfg {
		path := fmt.Sprintf("windows[%d]", i)
		if first, ok := names[c.Name]; ok {
			faults = append(faults, fmt.Errorf("%s.name: %q is already the name of windows[%d]", path, c.Name, first))
		}
		names[c.Name] = i
		faults = append(faults, c.faults(path)...)
	}
	return errors.Join(faults...)
}

func (c Config) faults(path string) []error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%s.%s: %s", path, key, fmt.Sprintf(format, args...)))
	}
	if !validName.MatchString(c.Name) || strings.HasSuffix(c.Name, "_merged") {
		fault("name", "%q, want 1 to 48 of a-z, 0-9 and _, a letter first, not ending in _merged", c.Name)
	}
	if c.Size < time.Second || c.Size%time.Second != 0 || 24*time.Hour%c.Size != 0 {
		fault("size", "%v, want whole seconds that divide a day", c.Size)
	}
	if c.Lateness < 0 || c.Lateness > maxLateness || c.Lateness%time.Millisecond != 0 {
		fault("lateness", "%v, want 0 to %v in whole milliseconds", c.Lateness, maxLateness)
	}
	if c.MaxGroups < 0 || c.MaxGroups > maxMaxGroups {
		fault("max_groups", "%d, want 1 to %d, or 0 for %d", c.MaxGroups, maxMaxGroups, DefaultMaxGroups)
	}
	if c.MaxStateMiB < 0 || c.MaxStateMiB > maxMaxStateMiB {
		fault("max_state_mib", "%d, want 1 to %d, or 0 for %d", c.MaxStateMiB, maxMaxStateMiB, DefaultMaxStateMiB)
	}
	for _, list := range []struct {
		key     string
		columns []string
		most    int
		allowed func(schemas.Column) bool
	}{
		{"group_by", c.GroupBy, maxGroupBy, canGroup},
		{"sums", c.Sums, maxSums, canSum},
		{"distinct", c.Distinct, maxDistinct, canCountDistinct},
	} {
		if len(list.columns) > list.most {
			fault(list.key, "%d columns, at most %d", len(list.columns), list.most)
		}
		for i, name := range list.columns {
			at := schemas.EnrichedFlows.Index(name)
			switch {
			case at < 0 || !list.allowed(schemas.EnrichedFlows.Columns[at]):
				fault(fmt.Sprintf("%s[%d]", list.key, i), "%q, want one of %s", name, allowedColumns(list.allowed))
			case slices.Contains(list.columns[:i], name):
				fault(fmt.Sprintf("%s[%d]", list.key, i), "%q is in the list twice", name)
			}
		}
	}
	return faults
}

// canGroup: what names something. Times, counters and a row's address are no keys.
func canGroup(c schemas.Column) bool {
	switch kindOf(c.Arrow) {
	case kindWord, kindName, kindAddress, kindUint8, kindUint16:
		return true
	case kindUint32:
		return c.Source != "address"
	default:
		return false
	}
}

// canSum: counters, which have a unit.
func canSum(c schemas.Column) bool {
	return kindOf(c.Arrow) == kindUint64 && (c.Unit == "bytes" || c.Unit == "packets") && c.Source != "address"
}

// canCountDistinct: everything that says something of the flow. A batch_id depends
// on how rows came, not on the rows.
func canCountDistinct(c schemas.Column) bool { return canGroup(c) }

func allowedColumns(allowed func(schemas.Column) bool) string {
	var names []string
	for _, c := range schemas.EnrichedFlows.Columns {
		if allowed(c) {
			names = append(names, c.Name)
		}
	}
	return strings.Join(names, ", ")
}

// kind is how a column's values are read and packed.
type kind uint8

const (
	kindOther   kind = iota
	kindWord         // text of a closed list, one-byte codes
	kindName         // open text, four-byte codes
	kindAddress      // 16 bytes
	kindUint8
	kindUint16
	kindUint32
	kindUint64
)

func kindOf(t arrow.DataType) kind {
	switch {
	case arrow.TypeEqual(t, schemas.Word):
		return kindWord
	case arrow.TypeEqual(t, schemas.Name):
		return kindName
	case arrow.TypeEqual(t, schemas.Address):
		return kindAddress
	case t.ID() == arrow.UINT8:
		return kindUint8
	case t.ID() == arrow.UINT16:
		return kindUint16
	case t.ID() == arrow.UINT32:
		return kindUint32
	case t.ID() == arrow.UINT64:
		return kindUint64
	default:
		return kindOther
	}
}

// fingerprint says what a stored state means: two states with one fingerprint can
// be continued by each other. The limits are left out, they may change at any time.
func (c Config) fingerprint() string {
	return fmt.Sprintf("size=%v lateness=%v group_by=%s sums=%s distinct=%s", c.Size, c.Lateness,
		strings.Join(c.GroupBy, ","), strings.Join(c.Sums, ","), strings.Join(c.Distinct, ","))
}
