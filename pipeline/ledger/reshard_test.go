package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/ledger"
)

// crashing is a store whose process ends at a write.
type crashing struct {
	*container
	left int
}

var errCrash = errors.New("crash")

func (c *crashing) write() error {
	if c.left--; c.left < 0 {
		return errCrash
	}
	return nil
}

func (c *crashing) Put(ctx context.Context, name string, data []byte) error {
	return errors.Join(c.write(), c.container.Put(ctx, name, data)) // it happened, and nobody heard
}

func (c *crashing) Create(ctx context.Context, name string, data []byte) error {
	if err := c.container.Create(ctx, name, data); err != nil {
		return err
	}
	return c.write()
}

func (c *crashing) Delete(ctx context.Context, name string) error {
	if err := c.write(); err != nil {
		return err
	}
	return c.container.Delete(ctx, name)
}

func blobID(i int) pipeline.BlobID {
	return pipeline.BlobID{Account: "a", Container: "c", Path: fmt.Sprintf("x/y=2026/m=11/d=23/h=06/m=00/macAddress=%012X/PT1H.json", i)}
}

// closed is a ledger of some shards behind the end of its input.
func closed(t *testing.T, shards, blobs int) *container {
	t.Helper()
	c := newContainer()
	l, err := ledger.Open(t.Context(), c, ledger.Info{Shards: shards}, ledger.OneLedger(1))
	if err != nil {
		t.Fatal(err)
	}
	bases := make([]ledger.Base, shards)
	for i := range blobs {
		s := pipeline.ShardOf(blobID(i).Stream(), shards)
		bases[s].Positions = append(bases[s].Positions, ledger.Position{Blob: blobID(i), End: int64(i + 100)})
		bases[s].Streams = append(bases[s].Streams, ledger.StreamTime{Stream: blobID(i).Stream(), MaxTime: int64(i)})
	}
	for s, b := range bases {
		for seq := range uint64(2 + s) { // shards are not equally far
			b.Shard, b.Seq, b.Watermark = s, seq+1, pipeline.EndOfInput
			b.Operators = [][]byte{{1}}
			if err := l.WriteManifest(t.Context(), pipeline.Manifest{Shard: s, Seq: seq + 1}); err != nil {
				t.Fatal(err)
			}
			if err := l.WriteBase(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
	}
	return c
}

// Whatever write a resharding ends at, until it is finished nobody else opens the
// ledger, and the next attempt comes to the same end.
func TestReshardGoesOnAfterACrash(t *testing.T) {
	for _, to := range []int{1, 2, 5} {
		var want map[string][]byte
		for n := 0; ; n++ {
			c := &crashing{container: closed(t, 3, 40), left: 1 << 30}
			if _, err := ledger.BeginReshard(t.Context(), c, to); err != nil {
				t.Fatal(err)
			}
			told := 0
			retarget := func(_ context.Context, info ledger.Info, seq uint64) error {
				told++
				if info.Shards != to || seq != 4 {
					t.Errorf("the target hears of %d shards and batch %d", info.Shards, seq)
				}
				return c.write()
			}
			if n > 0 { // the first one is not interrupted
				c.left = n - 1
			}
			err := ledger.FinishReshard(t.Context(), c, retarget)
			if n > 0 && err == nil {
				break // the crash would have come behind the end
			}
			if n > 0 {
				c.left = 1 << 30
				if _, err := ledger.Open(t.Context(), c, ledger.Info{Shards: 3}, ledger.OneLedger(1)); !errors.Is(err, ledger.ErrResharding) || !strings.Contains(err.Error(), fmt.Sprintf("reshard --shards %d --yes", to)) {
					t.Fatalf("opened between two attempts: %v", err)
				}
				if _, err := ledger.BeginReshard(t.Context(), c, to+1); err == nil || !strings.Contains(err.Error(), "comes first") {
					t.Errorf("another number of shards in between: %v", err)
				}
				if _, err := ledger.BeginReshard(t.Context(), c, to); err != nil {
					t.Fatal(err)
				}
				err = ledger.FinishReshard(t.Context(), c, retarget)
			}
			if err != nil || told == 0 {
				t.Fatalf("crash at write %d, then: %v", n, err)
			}
			if want == nil {
				want = maps.Clone(c.objects)
				delete(want, "name") // random, and in the info
				checkSpread(t, &container{objects: maps.Clone(c.objects), version: map[string]int{}}, to)
			}
			have := maps.Clone(c.objects)
			delete(have, "name")
			have["info"], want["info"] = nil, nil
			if diff := cmp.Diff(want, have); diff != "" {
				t.Fatalf("crash at write %d leaves another ledger (-want +got):\n%s", n, diff)
			}
		}
	}
}

// checkSpread: every blob is in its shard, and sequence numbers go on above all.
func checkSpread(t *testing.T, c *container, shards int) {
	t.Helper()
	l, err := ledger.Open(t.Context(), c, ledger.Info{}, ledger.OneLedger(1))
	if err != nil || l.Info().Shards != shards {
		t.Fatalf("%+v, %v", l.Info(), err)
	}
	var blobs []string
	for s := range shards {
		found, err := l.Recover(t.Context(), s)
		if err != nil || found.NextSeq() != 5 || len(found.Base.Operators) != 0 || found.Base.Watermark == pipeline.EndOfInput {
			t.Errorf("shard %d: next %d, %+v, %v", s, found.NextSeq(), found.Base, err)
		}
		for i, p := range found.Base.Positions {
			if pipeline.ShardOf(p.Blob.Stream(), shards) != s || found.Base.Streams[i].Stream != p.Blob.Stream() {
				t.Errorf("%q is in shard %d of %d", p.Blob, s, shards)
			}
			blobs = append(blobs, p.Blob.String())
		}
	}
	slices.Sort(blobs)
	if n := len(slices.Compact(blobs)); n != 40 {
		t.Errorf("%d blobs, want 40", n)
	}
}

// A ledger that is shown while its owner works and prunes is whole.
func TestInspectBesideTheOwner(t *testing.T) {
	root := t.TempDir() + "/l"
	if _, err := ledger.ReadDirectory(root); err == nil {
		t.Error("a folder that is not there can be read")
	}
	d, err := ledger.OpenDirectory(root)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	store, err := ledger.ReadDirectory(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.Inspect(t.Context(), store); !errors.Is(err, ledger.ErrNotExist) {
		t.Errorf("an empty folder: %v", err)
	}
	l, err := ledger.Open(t.Context(), d, ledger.Info{Shards: 1}, ledger.OneLedger(3))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for seq := uint64(1); seq <= 120; seq++ {
			m := pipeline.Manifest{Seq: seq, DoneSeq: seq - 1, Watermark: pipeline.Watermark(seq), Units: []pipeline.Unit{{Blob: blobID(int(seq))}}}
			if err := l.WriteManifest(t.Context(), m); err != nil {
				t.Error(err)
			}
			if seq%3 == 0 {
				if err := l.WriteBase(t.Context(), ledger.Base{Seq: seq, Watermark: m.Watermark}); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	last := uint64(0)
	for looks := 0; ; looks++ {
		s, err := ledger.Inspect(t.Context(), store)
		if err != nil {
			t.Fatal(err)
		}
		h := s.State[0]
		if h.Next <= last-min(last, 1) || h.Next != h.Done+uint64(h.Pending)+1 || s.ID != 3 || s.Epoch != 1 {
			t.Errorf("%+v after batch %d", s, last)
		}
		last = h.Next
		select {
		case <-done:
			if looks < 3 {
				t.Errorf("only %d looks", looks)
			}
			return
		default:
		}
	}
}
