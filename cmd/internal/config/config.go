// Package config reads the configuration of a pipeline from YAML. Unknown keys
// are errors, and every fault is reported at once with its key path.
//
// Secrets never stand in the file: it names an environment variable or a file that
// holds them.
package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/operators/enrich"
	"github.com/millrace/millrace/operators/filter"
	"github.com/millrace/millrace/operators/window"
)

// Config is one pipeline.
//
// Every field has a comment with meaning, unit, default and bounds: the schema for
// editors and the table of keys are made of them. The tag enum lists the only
// values a text may have; reload:"live" says that a running pipeline takes a new
// value over, for the field and all below it.
type Config struct {
	// State is the folder of the ledger: what was promised, and how far every blob is
	// landed. On a disk that survives restarts; one process at a time owns it. Required.
	State string `yaml:"state"`
	// Shards is how many shards a new ledger gets; an old one keeps its own. Default 4,
	// 1 to 64.
	Shards int `yaml:"shards"`
	// Start is the earliest time that is read: "now", "now-1h" or RFC 3339. It counts
	// when the ledger is made; later starts go on where the last one ended. Required.
	Start string `yaml:"start"`
	// Listen is where metrics, health and status are served, host:port. They have no
	// password: keep it on loopback. "" serves nothing. Default 127.0.0.1:9464.
	Listen string `yaml:"listen"`
	// LogLevel is the least level that is logged; --verbose means debug. Default info.
	LogLevel string `yaml:"log_level" enum:"debug,info,warn,error" reload:"live"`
	// MaxBatchAge closes a commit: latency against ledger writes and parts of the target.
	// Default 5s, at least 1s.
	MaxBatchAge time.Duration `yaml:"max_batch_age" reload:"live"`
	// MemoryBudget bounds text and rows in flight, in MiB. Default 192, at least 128.
	// With enrichment half of it is for what that adds.
	MemoryBudget int64 `yaml:"memory_budget_mib"`
	// OutOfOrderness is how far behind the newest event time of a stream rows are
	// still expected before windows close. Default 10s, at least 0s.
	OutOfOrderness time.Duration `yaml:"out_of_orderness" reload:"live"`

	// Identity is used by every account and hub that names no credential of its own.
	// Default none.
	Identity *Identity `yaml:"identity" reload:"live"`
	// Accounts are the storage accounts that hold flow logs. Required, at least one. A
	// running pipeline takes further ones over, and none away.
	Accounts []Account `yaml:"accounts"`
	// EventHubs are the hubs that announce new bytes. Default none: the sweeper finds
	// everything, minutes later.
	EventHubs []EventHub `yaml:"eventhubs" reload:"live"`
	// Sweeper finds what no notification told of.
	Sweeper Sweeper `yaml:"sweeper"`
	// Directories are read in place of accounts; the sweeper is of no matter then.
	// Default none.
	Directories []Directory `yaml:"directories"`
	// DirectorySource says how directories are read.
	DirectorySource DirectorySource `yaml:"directory_source"`
	// KafkaSources are topics of Kafka that announce new bytes, as event hubs do. Default
	// none.
	KafkaSources []KafkaSource `yaml:"kafka_sources"`
	// ClickHouse is where rows land. It may be left out where there is kafka.
	ClickHouse ClickHouse `yaml:"clickhouse"`
	// Kafka is where rows land too, or alone. Default none.
	Kafka *Kafka `yaml:"kafka"`
	// Ledger says where the ledger is, if not in the folder of state.
	Ledger Ledger `yaml:"ledger"`
	// Windows are event-time windows; each is a table windows_NAME and a view
	// windows_NAME_merged. Default: traffic_1m, services_1m and rules_5m.
	Windows []window.Config `yaml:"windows"`
	// Filters are tried on every row before anything else; the first that fits decides.
	// Rows that one drops are counted, and are in no table and no window.
	Filters []filter.Config `yaml:"filters"`
	// Enrich puts what is known of addresses behind the rows. Without it, off; with
	// nothing in it, {}, it needs no file.
	Enrich *enrich.Config `yaml:"enrich"`
}

// Sweeper finds what no announcement told of.
type Sweeper struct {
	// Interval between two listings of the current and the previous hour. Default
	// 10m, at least 1s; 0s switches the sweeper off, which takes a restart.
	Interval time.Duration `yaml:"interval" reload:"live"`
	// Discover is the time between two walks over the folders, which find network
	// interfaces that no notification told of. Default 1h, at least interval.
	Discover time.Duration `yaml:"discover" reload:"live"`
}

// Default gives the defaults.
func Default() Config {
	return Config{
		Shards: 4, Listen: "127.0.0.1:9464", LogLevel: "info", MaxBatchAge: 5 * time.Second, MemoryBudget: 192, OutOfOrderness: 10 * time.Second,
		Sweeper:         Sweeper{Interval: 10 * time.Minute, Discover: time.Hour},
		DirectorySource: DirectorySource{Interval: 5 * time.Second, Suffix: "/PT1H.json"},
		ClickHouse:      ClickHouse{Database: "millrace", User: "default", MaxExcerpts: 1024},
		Ledger:          Ledger{Expiry: defaultExpiry},
		Windows:         window.DefaultWindows(),
	}
}

// Load reads and checks a file.
func Load(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	c, err := Parse(data)
	if err != nil {
		space := " "
		if len(FaultsOf(err)) > 1 {
			space = "" // they begin on a new line
		}
		return Config{}, fmt.Errorf("configuration %q:%s%w", path, space, err)
	}
	return c, nil
}

// Parse reads and checks a text.
//
// Errors: Faults, all at once: of the text, and of what it says.
func Parse(data []byte) (Config, error) {
	c := Default()
	r := read(data, &c)
	if r.places == nil {
		return c, r.faults // no YAML at all
	}
	c.fill()
	return c, r.merge(c.Validate())
}

// fill gives the defaults that depend on what else is there.
func (c *Config) fill() { c.fillAzure() }

// Validate reports every fault at once, each with its key path.
func (c Config) Validate() error {
	var faults []error
	check := func(ok bool, key, format string, args ...any) {
		if !ok {
			faults = append(faults, Fault{Key: key, Text: fmt.Sprintf(format, args...)})
		}
	}
	c.validateValues(check)
	check(c.State != "", "state", "missing: name a folder for the ledger, such as ./state")
	check(c.Shards >= 1 && c.Shards <= 64, "shards", "%d: want 1 to 64", c.Shards)
	_, err := c.StartTime(time.Now())
	check(err == nil, "start", "%v", err)
	_, _, err = net.SplitHostPort(c.Listen)
	check(c.Listen == "" || err == nil, "listen", "%q: want host:port, such as 127.0.0.1:9464, or \"\" for none", c.Listen)
	check(c.MaxBatchAge >= time.Second, "max_batch_age", "%v: want at least 1s", c.MaxBatchAge)
	check(c.MemoryBudget >= 128, "memory_budget_mib", "%d: want at least 128", c.MemoryBudget)
	check(c.OutOfOrderness >= 0, "out_of_orderness", "%v: want 0s or more", c.OutOfOrderness)
	c.Identity.validate("identity", check)
	if len(c.Directories) > 0 {
		c.checkDirectories(check)
	} else {
		c.validateAccounts(check)
	}
	c.validateEventHubs(check)
	check(len(c.Directories) > 0 || len(c.EventHubs)+len(c.KafkaSources) > 0 || c.Sweeper.Interval > 0, "eventhubs", "missing, and the sweeper is off: nothing would ever be read")
	check(c.Sweeper.Interval == 0 || c.Sweeper.Interval >= time.Second, "sweeper.interval", "%v: want at least 1s, or 0s for no sweeper", c.Sweeper.Interval)
	check(c.Sweeper.Interval == 0 || c.Sweeper.Discover >= c.Sweeper.Interval, "sweeper.discover", "%v: want at least the interval of %v", c.Sweeper.Discover, c.Sweeper.Interval)
	c.Ledger.check(check)
	c.checkKafka(check)
	if c.Kafka == nil || c.HasClickHouse() {
		c.ClickHouse.check(check, c.Shards)
	}
	faults = append(faults, window.Validate(c.Windows), filter.Validate(c.Filters), c.checkEnriched())
	return errors.Join(faults...)
}

// validateValues checks every field whose values are a closed list, and every
// reference.
func (c Config) validateValues(check checker) {
	walk("", false, reflect.ValueOf(c), func(path string, _ bool, v reflect.Value) bool {
		if r, ok := v.Interface().(Reference); ok {
			check(r.Env == "" || r.File == "", path, "names both env and file: keep one")
			return false
		}
		if v.Kind() != reflect.Struct {
			return true
		}
		for _, f := range reflect.VisibleFields(v.Type()) {
			values, ok := f.Tag.Lookup("enum")
			if !ok {
				continue
			}
			allowed := strings.Split(values, ",")
			text := v.FieldByIndex(f.Index).String()
			check(slices.Contains(allowed, text), join(path, keyOf(f)), "%q: want %s", text, quoteList(allowed))
		}
		return true
	})
}

// isURL says whether s is an address without user and query. These may hold a
// password or a signature, which is why no message repeats the text.
func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == ""
}

// StartTime reads Start relative to now.
func (c Config) StartTime(now time.Time) (time.Time, error) {
	switch {
	case c.Start == "":
		return time.Time{}, errors.New(`missing: say from when on blobs are read, such as "now-1h" or 2026-11-23T00:00:00Z`)
	case c.Start == "now":
		return now, nil
	case strings.HasPrefix(c.Start, "now-"):
		d, err := time.ParseDuration(c.Start[len("now-"):])
		if err != nil || d < 0 {
			return time.Time{}, fmt.Errorf("%q: want now-DURATION, such as now-1h", c.Start)
		}
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, c.Start)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q: want now, now-DURATION or a time such as 2026-11-23T00:00:00Z", c.Start)
	}
	return t.UTC(), nil
}
