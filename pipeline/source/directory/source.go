// Package directory is a source that announces the files of a folder tree: a copy of
// containers, or what something else writes there.
//
// In flow names and lengths out of a Tree; out flow deliveries without an
// acknowledgement, hour by hour. In one pass every file is announced once, and Run
// ends, which is the end of the input. Watched, the tree is walked again and again,
// and what grew or changed is announced; only its new bytes are read then.
//
// Run owns no goroutine. Memory: name and length of every file of the tree, up to
// MaxFiles.
package directory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/millrace/millrace/pipeline"
)

// Tree names files. pipeline/blob's DirectoryStore is one.
type Tree interface {
	Walk(ctx context.Context, visit func(id pipeline.BlobID, size int64, version string)) error
	// Skipped counts the files that Walk passed over, by why.
	Skipped() map[string]int
}

// MaxFiles bounds the files of all trees of a source: about 400 bytes are kept of
// each.
const MaxFiles = 1_000_000

// Config of a Source.
type Config struct {
	// Watch says that Run goes on until it is stopped. Default: one pass.
	Watch bool
	// Interval is the time from one pass to the next. Default 5 s, at least 100 ms.
	Interval time.Duration
	// Suffix is what names of flow logs end with. Default /PT1H.json.
	Suffix string
	// Log gets a line when a pass went wrong, or passed over further files. Default:
	// none.
	Log *slog.Logger
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	if c.Interval < 100*time.Millisecond {
		return fmt.Errorf("directory: interval of %s, want at least 100ms", c.Interval)
	}
	return nil
}

// Source announces files. It implements pipeline.Source.
type Source struct {
	cfg   Config
	tree  Tree
	known map[xxh3.Uint128]seen // of the watched
	walks int
	// skipped is what was logged of the files that are passed over.
	skipped map[string]int
}

// seen is a file as it was announced last.
type seen struct {
	size    int64
	version uint64 // hash
	walk    int    // the last one that met it
}

var _ pipeline.Source = (*Source)(nil)

// New checks the configuration; zero values mean the defaults. It does no I/O.
func New(cfg Config, tree Tree) (*Source, error) {
	cfg.Interval = cmp.Or(cfg.Interval, 5*time.Second)
	cfg.Suffix = cmp.Or(cfg.Suffix, "/PT1H.json")
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if tree == nil {
		return nil, errors.New("directory: no tree")
	}
	return &Source{cfg: cfg, tree: tree, known: map[xxh3.Uint128]seen{}}, nil
}

// Run announces the files. A tree that cannot be walked ends one pass with an
// error; watched, it is met again at the next one.
func (s *Source) Run(ctx context.Context, emit func(context.Context, pipeline.Delivery) error) error {
	if !s.cfg.Watch {
		err := s.pass(ctx, emit)
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	ticker := time.NewTicker(s.cfg.Interval)
	defer ticker.Stop()
	for {
		err := s.pass(ctx, emit)
		var walk walkError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &walk):
			s.cfg.Log.Warn("the directory cannot be walked; it is tried again", slog.Any("cause", err))
		case err != nil:
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Sweep makes one more pass over a watched tree. Run must have ended.
func (s *Source) Sweep(ctx context.Context, emit func(context.Context, pipeline.Delivery) error) error {
	if !s.cfg.Watch {
		return nil // Run has seen everything
	}
	return s.pass(ctx, emit)
}

// walkError is the tree's; others are emit's.
type walkError struct{ error }

func (e walkError) Unwrap() error { return e.error }

// file is one that is to be announced.
type file struct {
	id      pipeline.BlobID
	hour    time.Time
	size    int64
	version uint64
}

func (s *Source) pass(ctx context.Context, emit func(context.Context, pipeline.Delivery) error) error {
	files, err := s.news(ctx)
	if err != nil {
		return err
	}
	for _, f := range files {
		a := pipeline.Announcement{Blob: f.id, ContentLength: f.size}
		key := xxh3.HashString128(f.id.String())
		if was, ok := s.known[key]; ok && f.size <= was.size {
			a.ContentLength = -1 // changed, and not longer: the reader has to look
		}
		if err := emit(ctx, pipeline.Delivery{Announcements: []pipeline.Announcement{a}}); err != nil {
			return err
		}
		if s.cfg.Watch {
			s.known[key] = seen{f.size, f.version, s.walks}
		}
	}
	return nil
}

// tell logs what is passed over when it is more than before.
func (s *Source) tell() {
	now := s.tree.Skipped()
	if maps.Equal(now, s.skipped) {
		return
	}
	s.skipped = now
	var counts []any
	for _, why := range slices.Sorted(maps.Keys(now)) {
		counts = append(counts, slog.Int(why, now[why]))
	}
	s.cfg.Log.Warn("files of the directories are passed over", counts...)
}

// news gives what is to be announced, sorted by hour and name: so the windows of the
// past close in order.
func (s *Source) news(ctx context.Context) ([]file, error) {
	var files []file
	count := 0
	s.walks++
	err := s.tree.Walk(ctx, func(id pipeline.BlobID, size int64, version string) {
		if !strings.HasSuffix("/"+id.Path, s.cfg.Suffix) {
			return
		}
		if count++; count > MaxFiles {
			return
		}
		f := file{id: id, size: size, version: xxh3.HashString(version)}
		f.hour, _ = id.Hour()
		key := xxh3.HashString128(id.String())
		was, ok := s.known[key]
		if ok {
			was.walk = s.walks
			s.known[key] = was
		}
		if !ok || was.size != f.size || was.version != f.version {
			files = append(files, f)
		}
	})
	if err != nil {
		return nil, walkError{err}
	}
	s.tell()
	maps.DeleteFunc(s.known, func(_ xxh3.Uint128, was seen) bool { return was.walk < s.walks })
	if count > MaxFiles {
		return nil, fmt.Errorf("directory: more than %d files: land older ones with millrace replay, which has no such limit", MaxFiles)
	}
	slices.SortFunc(files, func(a, b file) int {
		return cmp.Or(a.hour.Compare(b.hour), cmp.Compare(a.id.String(), b.id.String()))
	})
	return files, nil
}
