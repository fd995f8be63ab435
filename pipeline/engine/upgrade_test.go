package engine_test

// A ledger that one release left with pending commits is finished by another.
// testdata/upgrade/make.sh puts this file into an older release's pipeline/engine, too,
// where it uses that release's own estate and target of engine_test.go; what differs
// between releases is startSink.

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/engine"
)

type releaseFixture struct {
	Hour      time.Time         `json:"hour"`
	Blobs     map[string]string `json:"blobs"` // by account/container/path, without header and footer
	Written   int               `json:"written"`
	Bad       int               `json:"bad"`
	Rows      map[string]int64  `json:"rows"`      // landed, by batch, table, partition
	Addresses map[string]int    `json:"addresses"` // landed
	Windows   uint64            `json:"windows"`   // rows counted by landed windows
	Rejects   int64             `json:"rejects"`
}

// stuck is a target that lands so many more pieces, and then neither lands nor
// refuses: what is under way is in doubt.
type stuck struct {
	*target
	left atomic.Int64
}

func (s *stuck) Land(ctx context.Context, b pipeline.BatchID, epoch uint64, p pipeline.Piece) error {
	if s.left.Add(-1) < 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	for {
		if err := s.target.Land(ctx, b, epoch, p); !errors.Is(err, pipeline.ErrTransient) {
			return err
		}
	}
}

// This release leaves commits that are pending, for make.sh in the folder that it
// names.
func TestReleaseLeavesPendingCommits(t *testing.T) {
	dir := os.Getenv("RELEASE_OUT")
	if dir == "" {
		dir = t.TempDir()
	}
	e, s := newEstate(8, 5), &stuck{target: newTarget()}
	s.left.Store(1 << 40)
	eng, stop := startOn(t, filepath.Join(dir, "ledger"), e, s)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- eng.Run(ctx) }()
	grow := func(rounds int) {
		for range rounds {
			e.grow()
			time.Sleep(30 * time.Millisecond)
		}
	}
	grow(25)
	s.left.Store(5)
	grow(25)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	stop()
	f := releaseFixture{Hour: e.hour, Blobs: map[string]string{}, Written: e.written, Bad: e.bad, Rows: s.rows, Addresses: s.addresses, Windows: s.windows, Rejects: s.rejects}
	for id, region := range e.regions {
		f.Blobs[id.String()] = string(region)
	}
	data, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "world.json"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	finishRelease(t, dir) // by itself
}

func TestReleaseFinishesCommits(t *testing.T) {
	dirs, err := filepath.Glob("testdata/upgrade/*/world.json")
	if err != nil {
		t.Fatal(err)
	}
	if in := os.Getenv("RELEASE_IN"); in != "" {
		dirs = []string{filepath.Join(in, "world.json")}
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(filepath.Dir(dir)), func(t *testing.T) { finishRelease(t, filepath.Dir(dir)) })
	}
}

// finishRelease lets this release finish what another one left, read further rows,
// and stop at the end of the input. Everything is there once.
func finishRelease(t *testing.T, dir string) {
	t.Helper()
	var f releaseFixture
	data, err := os.ReadFile(filepath.Join(dir, "world.json"))
	if err == nil {
		err = json.Unmarshal(data, &f)
	}
	if err != nil {
		t.Fatal(err)
	}
	e, s := newEstate(9, 0), newTarget()
	e.hour, e.written, e.bad = f.Hour, f.Written, f.Bad
	for name, region := range f.Blobs {
		id, err := pipeline.ParseBlobID(name)
		if err != nil {
			t.Fatal(err)
		}
		e.regions[id] = []byte(region)
	}
	s.rows, s.addresses, s.windows, s.rejects = f.Rows, f.Addresses, f.Windows, f.Rejects
	ledgerDir := filepath.Join(t.TempDir(), "ledger")
	if err := os.CopyFS(ledgerDir, os.DirFS(filepath.Join(dir, "ledger"))); err != nil {
		t.Fatal(err)
	}
	private(t, ledgerDir)
	if landed := len(f.Addresses); landed == 0 || landed == f.Written {
		t.Fatalf("%d of %d tuples had landed: the fixture proves nothing", landed, f.Written)
	}
	eng, stop := startOn(t, ledgerDir, e, s)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- eng.Run(context.Background()) }()
	for range 5 {
		e.grow()
		time.Sleep(10 * time.Millisecond)
	}
	eng.Drain(true)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for a, n := range s.addresses {
		if n != 1 {
			t.Fatalf("tuple %s landed %d times", a, n)
		}
	}
	if len(s.addresses) != e.written || s.windows != uint64(e.written) || s.rejects != int64(e.bad) {
		t.Errorf("%d tuples, %d rows in windows, %d in quarantine; want %d, %d, %d", len(s.addresses), s.windows, s.rejects, e.written, e.written, e.bad)
	}
}

// private gives folders and files the modes of a ledger, which git does not keep.
func private(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func startOn(t *testing.T, dir string, e *estate, s pipeline.Sink) (*engine.Engine, func()) {
	t.Helper()
	return startSink(t, dir, e, s, memory.DefaultAllocator, func(c *engine.Config) {
		c.Shard.KeepOffsets = 100 * 365 * 24 * time.Hour // the fixture's hour may be long ago
		c.DrainTimeout = 30 * time.Second
	})
}
