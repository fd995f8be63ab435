package emulator

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"
)

// DefaultGroup is the consumer group that every hub has.
const DefaultGroup = "$Default"

// Hub describes one event hub.
type Hub struct {
	Name           string   // letters, digits, '.', '_', '-'; compared without case
	Partitions     int      // 1 to 1024; their ids are "0", "1", …
	ConsumerGroups []string // besides $Default, which always exists
}

// Retention bounds what a partition keeps. Whatever is exceeded first makes the
// oldest events go.
type Retention struct {
	Events int           // events; default 1,000,000
	Bytes  int64         // bytes of encoded events with 128 bytes for each; default 64 MiB
	Age    time.Duration // since an event came; default 24 h
}

// Config says what the emulator serves. DefaultConfig gives the defaults.
type Config struct {
	Addr           string // host:port to listen on; port 0 picks a free one
	Hubs           []Hub
	KeyName        string // name of the shared access key; default RootManageSharedAccessKey
	Key            string // with a key, tokens are checked; without, everybody is let in
	Retention      Retention
	MaxMessageSize int64         // bytes of one message or batch; default 1,048,576
	MaxFrameSize   int           // bytes of one frame; default 65,536
	MaxConnections int           // default 1,000
	IdleTimeout    time.Duration // a connection silent for so long is closed; default 4 min
	Logger         *slog.Logger  // nil is silent
	// Now gives the time that events are stamped with; nil is time.Now.
	Now func() time.Time
}

// DefaultConfig gives a configuration without hubs.
func DefaultConfig() Config {
	return Config{
		Addr: "127.0.0.1:5672", KeyName: "RootManageSharedAccessKey",
		Retention:      Retention{Events: 1_000_000, Bytes: 64 << 20, Age: 24 * time.Hour},
		MaxMessageSize: 1 << 20, MaxFrameSize: 64 << 10, MaxConnections: 1000,
		IdleTimeout: 4 * time.Minute, Now: time.Now,
	}
}

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	d := DefaultConfig()
	c.KeyName = orDefault(c.KeyName, d.KeyName)
	c.Addr = orDefault(c.Addr, d.Addr)
	c.Retention.Events = orDefault(c.Retention.Events, d.Retention.Events)
	c.Retention.Bytes = orDefault(c.Retention.Bytes, d.Retention.Bytes)
	c.Retention.Age = orDefault(c.Retention.Age, d.Retention.Age)
	c.MaxMessageSize = orDefault(c.MaxMessageSize, d.MaxMessageSize)
	c.MaxFrameSize = orDefault(c.MaxFrameSize, d.MaxFrameSize)
	c.MaxConnections = orDefault(c.MaxConnections, d.MaxConnections)
	c.IdleTimeout = orDefault(c.IdleTimeout, d.IdleTimeout)
	if c.Now == nil {
		c.Now = d.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

var nameRE = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,254}[A-Za-z0-9])?$`)

// Validate reports every fault at once. Zero fields stand for their defaults.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(c.Hubs) == 0 {
		bad("no hub")
	}
	seen := map[string]bool{}
	for _, h := range c.Hubs {
		if !nameRE.MatchString(h.Name) {
			bad("hub %q: want letters, digits, '.', '_', '-', a letter or digit at both ends", h.Name)
		}
		if seen[strings.ToLower(h.Name)] {
			bad("hub %q: twice", h.Name)
		}
		seen[strings.ToLower(h.Name)] = true
		if h.Partitions < 1 || h.Partitions > 1024 {
			bad("hub %q: %d partitions, want 1 to 1024", h.Name, h.Partitions)
		}
		for _, g := range h.ConsumerGroups {
			if !strings.EqualFold(g, DefaultGroup) && !nameRE.MatchString(g) {
				bad("hub %q: consumer group %q: want letters, digits, '.', '_', '-'", h.Name, g)
			}
		}
	}
	if c.Retention.Events < 1 || c.Retention.Bytes < 1 || c.Retention.Age < time.Millisecond {
		bad("retention of %d events, %d bytes, %s: want positive bounds", c.Retention.Events, c.Retention.Bytes, c.Retention.Age)
	}
	if c.MaxMessageSize < 1024 || c.MaxMessageSize > maxPartialBytes {
		bad("message size limit of %d bytes, want 1,024 to %d", c.MaxMessageSize, maxPartialBytes)
	}
	if c.MaxFrameSize < 512 || c.MaxFrameSize > 1<<20 {
		bad("frame size limit of %d bytes, want 512 to 1,048,576", c.MaxFrameSize)
	}
	if c.MaxConnections < 1 {
		bad("%d connections at most, want 1 or more", c.MaxConnections)
	}
	if c.IdleTimeout < 10*time.Millisecond {
		bad("idle time-out of %s, want 10 ms or more", c.IdleTimeout)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("check emulator configuration: %w", err)
	}
	return nil
}
