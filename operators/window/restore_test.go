package window

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/zeebo/xxh3"

	"github.com/millrace/millrace/pipeline"
)

// someState gives the snapshot of an operator in the middle of its work.
func someState(t testing.TB, cfg []Config, rows int, seed uint64) []byte {
	t.Helper()
	o, err := New(cfg, memory.DefaultAllocator)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Release()
	rng := rand.New(rand.NewPCG(seed, 9))
	in, release := input(t, memory.DefaultAllocator, 1, 0, randomFlows(rng, rows, midnight, 90_000))
	defer release()
	in.Watermark = 1
	apply(t, o, in)
	snapshot, err := o.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return snapshot
}

func overflowing() []Config {
	cfg := lawWindows()
	for i := range cfg {
		cfg[i].MaxGroups = 2
	}
	return cfg
}

// The same rows in another order and in other batches leave the same bytes, even
// though ids of texts and places in tables differ.
func TestEqualStatesGiveEqualBytes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 10))
	flows := randomFlows(rng, 500, midnight, 200_000)
	var want []byte
	for i := range 5 {
		o, err := New(lawWindows(), memory.DefaultAllocator)
		if err != nil {
			t.Fatal(err)
		}
		for seq := range uint64(2) {
			half := flows[:250]
			if seq == 1 {
				half = flows[250:]
			}
			in, release := input(t, memory.DefaultAllocator, seq, 0, half)
			apply(t, o, in)
			release()
		}
		got, err := o.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			want = got
		}
		if !bytes.Equal(want, got) {
			t.Fatalf("run %d leaves other bytes", i)
		}
		rng.Shuffle(len(flows), func(i, j int) { flows[i], flows[j] = flows[j], flows[i] })
	}
}

func TestRestoreRefusesDamage(t *testing.T) {
	good := someState(t, lawWindows(), 60, 1)
	o, err := New(lawWindows(), memory.DefaultAllocator)
	if err != nil {
		t.Fatal(err)
	}
	empty, err := o.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	refuse := func(what string, b []byte) {
		t.Helper()
		if err := o.Restore(b); !errors.Is(err, ErrSnapshot) {
			t.Fatalf("%s: %v, want ErrSnapshot", what, err)
		}
		if now, err := o.Snapshot(); err != nil || !bytes.Equal(now, empty) {
			t.Fatalf("%s: the refused snapshot changed the state (%v)", what, err)
		}
	}
	for i := 0; i < len(good); i += 7 {
		refuse("cut", good[:i])
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		refuse("flipped bit", bad)
	}
	refuse("nothing", nil)
	refuse("more", append(bytes.Clone(good), 0))
	next := bytes.Clone(good)
	next[len(snapshotMagic)]++
	refuse("next version", seal(next))
}

// seal gives a snapshot a right length and checksum.
func seal(b []byte) []byte {
	if len(b) < snapshotHeader+snapshotSum {
		return b
	}
	body := b[:len(b)-snapshotSum]
	binary.LittleEndian.PutUint64(body[snapshotHeader-8:], uint64(len(body)-snapshotHeader))
	return binary.LittleEndian.AppendUint64(body, xxh3.Hash(body))
}

// Tables may come and go; a changed definition needs a new name.
func TestRestoreWithAnotherConfiguration(t *testing.T) {
	cfg := lawWindows()
	snapshot := someState(t, cfg, 60, 2)
	more := append([]Config{{Name: "new", Size: time.Minute}}, cfg[1:]...)
	more[1].MaxGroups = 3
	o, err := New(more, memory.DefaultAllocator)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Restore(snapshot); err != nil {
		t.Fatal(err)
	}
	if len(o.windows[0].open) != 0 || len(o.windows[1].open) == 0 || o.watermark != 1 {
		t.Errorf("restored %d and %d windows at watermark %d", len(o.windows[0].open), len(o.windows[1].open), o.watermark)
	}
	cfg[0].Sums = cfg[0].Sums[:1]
	o, err = New(cfg, memory.DefaultAllocator)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Restore(snapshot); !errors.Is(err, ErrChanged) {
		t.Errorf("restore into a changed table: %v, want ErrChanged", err)
	}
}

// Restore panics at nothing; what it takes gives the same bytes again. Each input
// is tried as it is and with a checksum that is right, so that the fuzzer reaches
// what is behind it.
func FuzzRestore(f *testing.F) {
	f.Add(someState(f, lawWindows(), 3, 1))
	f.Add(someState(f, overflowing(), 8, 2))
	empty, err := New(lawWindows(), memory.DefaultAllocator)
	if err != nil {
		f.Fatal(err)
	}
	snapshot, err := empty.Snapshot()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(snapshot)
	f.Fuzz(func(t *testing.T, b []byte) {
		checkRestore(t, b)
		checkRestore(t, seal(bytes.Clone(b)))
	})
}

// What is behind the checksum is checked too: each bit flipped, under a checksum
// that is right.
func TestRestoreOfSealedDamage(t *testing.T) {
	good := someState(t, overflowing(), 4, 3)
	refused := 0
	for i := snapshotHeader; i < len(good)-snapshotSum; i++ {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		if !checkRestore(t, seal(bad)) {
			refused++
		}
	}
	for i := snapshotHeader; i < len(good)-snapshotSum; i += 3 {
		if checkRestore(t, seal(append(bytes.Clone(good[:i]), good[:snapshotSum]...))) {
			t.Errorf("a state cut at byte %d of %d is taken", i, len(good))
		}
	}
	if refused < len(good)/2 {
		t.Errorf("only %d of %d flipped bits are refused", refused, len(good))
	}
}

// checkRestore tries one input and says whether it was taken. What is taken has to
// be a state that works.
func checkRestore(t *testing.T, b []byte) bool {
	t.Helper()
	// A fixed seed: the fuzzer wants equal ways for equal inputs.
	o := newSeeded(lawWindows(), memory.DefaultAllocator, 1)
	if err := o.Restore(b); err != nil {
		if !errors.Is(err, ErrSnapshot) && !errors.Is(err, ErrChanged) {
			t.Fatalf("an error of no kind: %v", err)
		}
		return false
	}
	again, err := o.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	// A snapshot may leave tables out or hold other ones: then only the second
	// generation is equal.
	if err := o.Restore(again); err != nil {
		t.Fatalf("its own snapshot is refused: %v", err)
	}
	third, err := o.Snapshot()
	if err != nil || !bytes.Equal(again, third) {
		t.Fatalf("a restored state gives another snapshot (%v)", err)
	}
	pieces, err := o.Apply(pipeline.OperatorInput{Watermark: pipeline.EndOfInput})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pieces {
		p.Record.Release()
	}
	return true
}
