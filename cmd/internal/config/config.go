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
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/millrace/millrace/operators/enrich"
	"github.com/millrace/millrace/operators/filter"
	"github.com/millrace/millrace/operators/window"
	"github.com/millrace/millrace/pipeline/secret"
	"github.com/millrace/millrace/sinks/clickhouse"
)

// Config is one pipeline.
type Config struct {
	// State is the folder of the ledger. One process at a time owns it.
	State string `yaml:"state"`
	// Shards is how many shards a new ledger gets, 1 to 64. Default 4.
	Shards int `yaml:"shards"`
	// Start is the earliest time that is read: "now", "now-1h" or RFC 3339. It counts
	// when the ledger is made; later starts go on where the last one ended. Required.
	Start string `yaml:"start"`
	// Listen is where metrics, health and status are served. Default 127.0.0.1:9464;
	// "" serves nothing.
	Listen string `yaml:"listen"`
	// MaxBatchAge closes a batch: latency against ledger writes and parts. Default
	// 5s, at least 1s.
	MaxBatchAge time.Duration `yaml:"max_batch_age"`
	// MemoryBudget bounds text and rows in flight, in MiB. Default 192, at least 128.
	MemoryBudget int64 `yaml:"memory_budget_mib"`
	// OutOfOrderness is how far behind the newest event time of a stream rows are
	// still expected before windows close. Default 10s.
	OutOfOrderness time.Duration `yaml:"out_of_orderness"`

	Accounts   []Account       `yaml:"accounts"`
	EventHubs  []EventHub      `yaml:"eventhubs"`
	Sweeper    Sweeper         `yaml:"sweeper"`
	ClickHouse ClickHouse      `yaml:"clickhouse"`
	Ledger     Ledger          `yaml:"ledger"`
	Windows    []window.Config `yaml:"windows"`
	// Filters are tried on every row before anything else; the first that fits decides.
	// Rows that one drops are counted, and are in no table and no window.
	Filters []filter.Config `yaml:"filters"`
	// Enrich puts what is known of addresses behind the rows. Without it, off; with
	// nothing in it, {}, it needs no file.
	Enrich *enrich.Config `yaml:"enrich"`
}

// Account is one storage account whose blobs may be read.
type Account struct {
	Name     string `yaml:"name"`
	Endpoint string `yaml:"endpoint"` // blob endpoint
	// Aliases are further endpoints under which notifications name the account.
	Aliases []string `yaml:"aliases"`
	// Containers that may be read, by exact name.
	Containers []string `yaml:"containers"`
	// Key names the account key, SAS a shared access signature: one of them.
	Key Reference `yaml:"key"`
	SAS Reference `yaml:"sas"`
	// PrivateNetwork allows the endpoint's name to resolve to a private address, as it
	// does behind Azure Private Link.
	PrivateNetwork bool `yaml:"private_network"`
}

// EventHub is one hub that announces blobs.
type EventHub struct {
	// ConnectionString names the namespace's connection string.
	ConnectionString Reference `yaml:"connection_string"`
	Hub              string    `yaml:"hub"`
	ConsumerGroup    string    `yaml:"consumer_group"` // default $Default
}

// Sweeper finds what no announcement told of.
type Sweeper struct {
	// Interval between two listings of the current and the previous hour. Default
	// 10m; 0s switches the sweeper off.
	Interval time.Duration `yaml:"interval"`
	// Discover is the time between two walks over the folders, which find network
	// interfaces that no notification told of. Default 1h, at least interval.
	Discover time.Duration `yaml:"discover"`
}

// ClickHouse is where rows land.
type ClickHouse struct {
	// URL of the server: http://host:8123 or https://host:8443; native TCP is
	// tcp://host:9000 or tls://host:9440 (clickhouse://host:9000, with ?secure=true for
	// TLS, means the same). Required, without user and password.
	URL      string    `yaml:"url"`
	Database string    `yaml:"database"` // default millrace
	User     string    `yaml:"user"`     // default default
	Password Reference `yaml:"password"`
	// AllowNonEmpty lets a new ledger begin on tables that hold rows of others.
	AllowNonEmpty bool `yaml:"allow_non_empty"`
}

// Reference says where a secret is. At most one field is set.
type Reference struct {
	Env  string `yaml:"env"`  // environment variable
	File string `yaml:"file"` // path; one line
}

// Set says whether the reference names anything.
func (r Reference) Set() bool { return r.Env != "" || r.File != "" }

// Resolve reads the secret.
//
// Errors: the variable is empty, the file cannot be read, or both are named.
func (r Reference) Resolve() (secret.Secret, error) {
	switch {
	case r.Env != "" && r.File != "":
		return secret.Secret{}, errors.New("names both env and file: keep one")
	case r.Env != "":
		v := os.Getenv(r.Env)
		if v == "" {
			return secret.Secret{}, fmt.Errorf("environment variable %q is empty: export it", r.Env)
		}
		return secret.New(v), nil
	case r.File != "":
		data, err := os.ReadFile(r.File)
		if err != nil {
			return secret.Secret{}, fmt.Errorf("read secret: %w", err)
		}
		return secret.New(strings.TrimSpace(string(data))), nil
	}
	return secret.Secret{}, nil
}

// Default gives the defaults.
func Default() Config {
	return Config{
		Shards: 4, Listen: "127.0.0.1:9464", MaxBatchAge: 5 * time.Second, MemoryBudget: 192, OutOfOrderness: 10 * time.Second,
		Sweeper:    Sweeper{Interval: 10 * time.Minute, Discover: time.Hour},
		ClickHouse: ClickHouse{Database: "millrace", User: "default"},
		Ledger:     Ledger{Expiry: defaultExpiry},
		Windows:    window.DefaultWindows(),
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
		return Config{}, fmt.Errorf("configuration %q: %w", path, err)
	}
	return c, nil
}

// Parse reads and checks a text.
func Parse(data []byte) (Config, error) {
	c := Default()
	if err := yaml.UnmarshalWithOptions(data, &c, yaml.Strict()); err != nil {
		return Config{}, explain(err)
	}
	if reflect.ValueOf(c).IsZero() { // an empty document takes the defaults away
		c = Default()
	}
	for i := range c.EventHubs {
		if c.EventHubs[i].ConsumerGroup == "" {
			c.EventHubs[i].ConsumerGroup = "$Default"
		}
	}
	return c, c.Validate()
}

// Validate reports every fault at once, each with its key path.
func (c Config) Validate() error {
	var faults []error
	check := func(ok bool, key, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(key+": "+format, args...))
		}
	}
	check(c.State != "", "state", "missing: name a folder for the ledger, such as ./state")
	check(c.Shards >= 1 && c.Shards <= 64, "shards", "%d: want 1 to 64", c.Shards)
	_, err := c.StartTime(time.Now())
	check(err == nil, "start", "%v", err)
	_, _, err = net.SplitHostPort(c.Listen)
	check(c.Listen == "" || err == nil, "listen", "%q: want host:port, such as 127.0.0.1:9464, or \"\" for none", c.Listen)
	check(c.MaxBatchAge >= time.Second, "max_batch_age", "%v: want at least 1s", c.MaxBatchAge)
	check(c.MemoryBudget >= 128, "memory_budget_mib", "%d: want at least 128", c.MemoryBudget)
	check(c.OutOfOrderness >= 0, "out_of_orderness", "%v: want 0s or more", c.OutOfOrderness)
	check(len(c.Accounts) > 0, "accounts", "missing: name at least one storage account")
	for i, a := range c.Accounts {
		key := fmt.Sprintf("accounts[%d]", i)
		check(a.Name != "", key+".name", "missing")
		check(isURL(a.Endpoint), key+".endpoint", "no plain http(s) address: give the blob endpoint without user or key, such as https://NAME.blob.core.windows.net")
		for j, alias := range a.Aliases {
			check(isURL(alias), fmt.Sprintf("%s.aliases[%d]", key, j), "no plain http(s) address")
		}
		check(len(a.Containers) > 0, key+".containers", "missing: name the containers that may be read")
		check(a.Key.Set() != a.SAS.Set(), key, "want exactly one of key and sas, each as {env: NAME} or {file: PATH}")
	}
	for i, h := range c.EventHubs {
		key := fmt.Sprintf("eventhubs[%d]", i)
		check(h.Hub != "", key+".hub", "missing")
		check(h.ConnectionString.Set(), key+".connection_string", "missing: {env: NAME} or {file: PATH}")
	}
	check(len(c.EventHubs) > 0 || c.Sweeper.Interval > 0, "eventhubs", "missing, and the sweeper is off: nothing would ever be read")
	check(c.Sweeper.Interval == 0 || c.Sweeper.Discover >= c.Sweeper.Interval, "sweeper.discover", "%v: want at least the interval of %v", c.Sweeper.Discover, c.Sweeper.Interval)
	c.Ledger.check(check)
	err = clickhouse.CheckURL(c.ClickHouse.URL)
	check(err == nil, "clickhouse.url", "%v", err)
	check(c.ClickHouse.Database != "", "clickhouse.database", "missing")
	faults = append(faults, window.Validate(c.Windows), filter.Validate(c.Filters), c.checkEnriched())
	return errors.Join(faults...)
}

// isURL says whether s is an address without a user. One with a user may hold a
// password, which is why no message repeats the text.
func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil
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
