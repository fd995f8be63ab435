package traffic

import (
	"errors"
	"fmt"
	"regexp"
	"time"
)

// Limits of a Config. They bound memory and keep addresses unique.
const (
	maxNICs            = 50_000
	maxAccounts        = 16
	maxTuplesPerMinute = 2_000_000
	maxWriters         = 256
	maxLate            = 30 * time.Minute
	maxDelay           = time.Hour
)

// Config says how large the estate is, how time passes, and what goes wrong.
type Config struct {
	// Seed fixes the estate and the bytes of every record. Any value; default 1.
	Seed uint64

	// Account is the name of the storage account that holds the logs.
	// Default "devstoreaccount1"; 3 to 24 lower-case letters and digits.
	Account string
	// Accounts is the number of storage accounts over which the interfaces are spread
	// evenly: the one above, and others with 2, 3 ... behind its name. Default 1; 1 to
	// 16.
	Accounts int
	// NICs is the number of network interfaces that are logged. Default 64; 1 to
	// 50,000.
	NICs int
	// TuplesPerMinute is the mean number of tuples per interface and minute over
	// the day. Default 2,000; 1 to 2,000,000.
	TuplesPerMinute int
	// DiurnalPercent is the swing of the load over a day around its mean.
	// Default 30; 0 to 90.
	DiurnalPercent int
	// IPv6Share is the share of virtual networks with both address families.
	// Default 0.25; 0 to 1.
	IPv6Share float64
	// NSGv2Share and NSGv1Share are the shares of interfaces whose logs have the
	// older NSG formats instead. Default 0; together at most 1.
	NSGv2Share, NSGv1Share float64

	// Start is the earliest tuple time, Until the first instant that is not
	// written any more. Default: one hour before Run is called, and never.
	Start, Until time.Time
	// TuplesPerSecond paces the replay of the past. 0, the default, means as fast
	// as the writer goes. Once the clock is reached it has no effect.
	TuplesPerSecond float64
	// MinutesPerAppend allows several minutes of an interface in one append while
	// the past is replayed. Default 1; 1 to 60.
	MinutesPerAppend int
	// Writers bounds the appends in flight. Default 4; 1 to 256.
	Writers int

	// CloudEventsShare is the share of events in the CloudEvents 1.0 schema; the
	// others have the Event Grid schema. Default 0.5; 0 to 1.
	CloudEventsShare float64
	// KeyBySubject publishes with the blob's subject as key. The default, false,
	// gives the empty key: events of one blob spread over partitions, as without
	// a PartitionKey in the Event Grid subscription.
	KeyBySubject bool
	// Duplicated, Reordered, Delayed and Dropped are shares of the events; an
	// event suffers at most one of them. Defaults 0.05, 0.05, 0.01, 0.01;
	// together at most 1.
	Duplicated, Reordered, Delayed, Dropped float64
	// DelayMax bounds the time for which an event is delayed, and for which the
	// second copy of a duplicated event is. Default 10 s; 1 ms to 1 h.
	DelayMax time.Duration
	// ReorderMax bounds the time for which a reordered event waits to be
	// overtaken by the next one of its blob. Default 5 s; 1 ms to 1 h.
	ReorderMax time.Duration
	// Noise is the number of events that concern nobody per real one: other
	// types, other accounts, other containers. Default 0.01; 0 to 1.
	Noise float64

	// Malformed is the number of tuples that no correct reader accepts, per good
	// tuple. Default 0; 0 to 1.
	Malformed float64
	// Late is the share of tuples whose time lies up to LateMax before the minute
	// of their record. Default 0 and 5 min; 0 to 1, 1 s to 30 min.
	Late    float64
	LateMax time.Duration

	// TruthFile, if set, is where Run leaves the truth as JSON when it ends.
	TruthFile string
}

// DefaultConfig returns the estate of the demo: 64 interfaces with about 2,000
// tuples a minute each, 7.5 million in an hour.
func DefaultConfig() Config {
	return Config{
		Seed:             1,
		Account:          "devstoreaccount1",
		Accounts:         1,
		NICs:             64,
		TuplesPerMinute:  2000,
		DiurnalPercent:   30,
		IPv6Share:        0.25,
		MinutesPerAppend: 1,
		Writers:          4,
		CloudEventsShare: 0.5,
		Duplicated:       0.05,
		Reordered:        0.05,
		Delayed:          0.01,
		Dropped:          0.01,
		DelayMax:         10 * time.Second,
		ReorderMax:       5 * time.Second,
		Noise:            0.01,
		LateMax:          5 * time.Minute,
	}
}

// AccountNames gives the storage accounts of the estate.
func (c Config) AccountNames() []string {
	names := []string{c.Account}
	for n := 2; n <= min(c.Accounts, maxAccounts); n++ {
		names = append(names, fmt.Sprintf("%s%d", c.Account, n))
	}
	return names
}

var accountName = regexp.MustCompile(`^[a-z0-9]{3,24}$`)

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	var faults []error
	add := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	number := func(name string, v, lo, hi int) {
		if v < lo || v > hi {
			add("%s is %d, want %d to %d", name, v, lo, hi)
		}
	}
	share := func(name string, v float64) {
		if !(v >= 0 && v <= 1) { // Also refuses NaN.
			add("%s is %v, want 0 to 1", name, v)
		}
	}
	span := func(name string, v, lo, hi time.Duration) {
		if v < lo || v > hi {
			add("%s is %v, want %v to %v", name, v, lo, hi)
		}
	}
	number("accounts", c.Accounts, 1, maxAccounts)
	for _, name := range c.AccountNames() {
		if !accountName.MatchString(name) {
			add("account is %q, want 3 to 24 lower-case letters and digits", name)
		}
	}
	number("nics", c.NICs, 1, maxNICs)
	number("tuples per minute", c.TuplesPerMinute, 1, maxTuplesPerMinute)
	number("diurnal percent", c.DiurnalPercent, 0, 90)
	number("minutes per append", c.MinutesPerAppend, 1, 60)
	number("writers", c.Writers, 1, maxWriters)
	share("ipv6 share", c.IPv6Share)
	share("nsg v2 share", c.NSGv2Share)
	share("nsg v1 share", c.NSGv1Share)
	share("nsg shares together", c.NSGv1Share+c.NSGv2Share)
	share("cloudevents share", c.CloudEventsShare)
	share("duplicated", c.Duplicated)
	share("reordered", c.Reordered)
	share("delayed", c.Delayed)
	share("dropped", c.Dropped)
	share("event faults together", c.Duplicated+c.Reordered+c.Delayed+c.Dropped)
	share("noise", c.Noise)
	share("malformed", c.Malformed)
	share("late", c.Late)
	span("delay max", c.DelayMax, time.Millisecond, maxDelay)
	span("reorder max", c.ReorderMax, time.Millisecond, maxDelay)
	span("late max", c.LateMax, time.Second, maxLate)
	if !(c.TuplesPerSecond >= 0) {
		add("tuples per second is %v, want 0 or more", c.TuplesPerSecond)
	}
	if !c.Start.IsZero() && !c.Until.IsZero() && !c.Start.Before(c.Until) {
		add("until %v is not after start %v", c.Until, c.Start)
	}
	if len(faults) > 0 {
		return fmt.Errorf("traffic config: %w", errors.Join(faults...))
	}
	return nil
}
