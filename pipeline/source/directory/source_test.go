package directory_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/source/directory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// files is a Tree in memory: name to length and version.
type files struct {
	mu    sync.Mutex
	sizes map[string]int64
	touch int
	gzip  int
	err   error
}

func (f *files) set(name string, size int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sizes[name] = size
	f.touch++
}

func (f *files) Walk(_ context.Context, visit func(id pipeline.BlobID, size int64, version string)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, size := range f.sizes {
		visit(pipeline.BlobID{Account: "a", Container: "c", Path: name}, size, fmt.Sprint(size, strings.Contains(name, "touched") && f.touch > 0, f.touch*strings.Count(name, "touched")))
	}
	return f.err
}

func (f *files) Skipped() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return map[string]int{"gzip": f.gzip, "link": 1}
}

// heard keeps what was announced.
type heard struct {
	mu  sync.Mutex
	got []string
	err error
}

func (h *heard) emit(_ context.Context, d pipeline.Delivery) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range d.Announcements {
		h.got = append(h.got, fmt.Sprintf("%s %d", a.Blob.Path, a.ContentLength))
	}
	return h.err
}

func (h *heard) take() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer func() { h.got = nil }()
	return strings.Join(h.got, "\n")
}

func newSource(t *testing.T, cfg directory.Config, tree directory.Tree) *directory.Source {
	t.Helper()
	s, err := directory.New(cfg, tree)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const day = "y=2026/m=11/d=23/"

// One pass gives every file once, hour by hour, and is the end.
func TestOnePass(t *testing.T) {
	tree := &files{sizes: map[string]int64{
		"r/" + day + "h=08/m=00/n=1/PT1H.json": 3, "r/" + day + "h=07/m=00/n=2/PT1H.json": 2, "s/" + day + "h=07/m=00/n=1/PT1H.json": 1,
		"PT1H.json": 9, "r/" + day + "h=07/m=00/other.json": 5, "XPT1H.json": 6,
	}}
	var h heard
	s := newSource(t, directory.Config{}, tree)
	if err := s.Run(t.Context(), h.emit); err != nil {
		t.Fatal(err)
	}
	want := "PT1H.json 9\nr/" + day + "h=07/m=00/n=2/PT1H.json 2\ns/" + day + "h=07/m=00/n=1/PT1H.json 1\nr/" + day + "h=08/m=00/n=1/PT1H.json 3"
	if diff := cmp.Diff(want, h.take()); diff != "" {
		t.Error(diff)
	}
	if err := s.Sweep(t.Context(), h.emit); err != nil || h.take() != "" {
		t.Errorf("a sweep behind one pass: %v", err)
	}
	tree.err = errors.New("no such folder")
	if err := s.Run(t.Context(), h.emit); !errors.Is(err, tree.err) {
		t.Errorf("a tree that cannot be walked: %v", err)
	}
	tree.err, h.err = nil, errors.New("full")
	if err := s.Run(t.Context(), h.emit); !errors.Is(err, h.err) {
		t.Errorf("emit's error comes back as %v", err)
	}
}

// A watched tree gives what is new, what grew, and with an unknown length what changed
// without growing; a fault is met again.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := &files{sizes: map[string]int64{"n/PT1H.json": 10, "touched/PT1H.json": 20}}
		var h heard
		s := newSource(t, directory.Config{Watch: true, Interval: time.Second}, tree)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx, h.emit) }()
		next := func(want string) {
			t.Helper()
			time.Sleep(time.Second) // there is one pass meanwhile
			if diff := cmp.Diff(want, h.take()); diff != "" {
				t.Error(diff)
			}
		}
		time.Sleep(time.Second / 2)
		next("n/PT1H.json 10\ntouched/PT1H.json 20")
		next("")
		tree.set("n/PT1H.json", 15)
		next("n/PT1H.json 15\ntouched/PT1H.json -1")
		tree.mu.Lock()
		tree.err = errors.New("gone for a while")
		tree.mu.Unlock()
		next("")
		tree.mu.Lock()
		tree.err = nil
		tree.sizes["n/PT1H.json"] = 12
		tree.mu.Unlock()
		next("n/PT1H.json -1")
		// A file that went away and came back is new.
		tree.mu.Lock()
		delete(tree.sizes, "n/PT1H.json")
		tree.mu.Unlock()
		next("")
		tree.mu.Lock()
		tree.sizes["n/PT1H.json"] = 12
		tree.mu.Unlock()
		next("n/PT1H.json 12")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		tree.set("last/PT1H.json", 1)
		if err := s.Sweep(t.Context(), h.emit); err != nil || !strings.Contains(h.take(), "last/PT1H.json 1") {
			t.Errorf("the last sweep: %v", err)
		}
	})
}

func TestTooManyFiles(t *testing.T) {
	tree := treeFunc(func(visit func(pipeline.BlobID, int64, string)) {
		for range directory.MaxFiles + 1 {
			visit(pipeline.BlobID{Path: "PT1H.json"}, 1, "")
		}
	})
	if err := newSource(t, directory.Config{}, tree).Run(t.Context(), new(heard).emit); err == nil || !strings.Contains(err.Error(), "millrace replay") {
		t.Errorf("%d files: %v", directory.MaxFiles+1, err)
	}
}

type treeFunc func(visit func(pipeline.BlobID, int64, string))

func (f treeFunc) Walk(_ context.Context, visit func(pipeline.BlobID, int64, string)) error {
	f(visit)
	return nil
}

func (treeFunc) Skipped() map[string]int { return nil }

// What is passed over is said once, and again when it is more.
func TestSaysWhatItPassesOver(t *testing.T) {
	var log bytes.Buffer
	tree := &files{sizes: map[string]int64{}}
	s := newSource(t, directory.Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, tree)
	for _, tree.gzip = range []int{3, 3, 4} {
		if err := s.Run(t.Context(), new(heard).emit); err != nil {
			t.Fatal(err)
		}
	}
	if text := log.String(); strings.Count(text, "passed over") != 2 || !strings.Contains(text, "gzip=3 link=1\n") || !strings.Contains(text, "gzip=4 link=1\n") {
		t.Errorf("it said:\n%s", text)
	}
}

func TestConfiguration(t *testing.T) {
	if _, err := directory.New(directory.Config{Interval: time.Millisecond}, &files{}); err == nil {
		t.Error("an interval of 1 ms is taken")
	}
	if _, err := directory.New(directory.Config{}, nil); err == nil {
		t.Error("no tree is taken")
	}
}
