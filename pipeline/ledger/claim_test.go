package ledger_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/ledger"
)

var claimHour = time.Date(2026, 11, 23, 7, 0, 0, 0, time.UTC)

func hourly(seq uint64, hour time.Time) pipeline.Manifest {
	id := pipeline.BlobID{Account: "a", Container: "c", Path: "r/" + hour.Format("y=2006/m=01/d=02/h=15/m=00") + "/PT1H.json"}
	return pipeline.Manifest{Seq: seq, Units: []pipeline.Unit{{Blob: id, Offset: 12, Length: 10}}}
}

// The hours that are claimed while a ledger is owned are not written any more; those
// behind them are, and what was written before is seen.
func TestClaim(t *testing.T) {
	root := t.TempDir()
	own, err := ledger.OpenDirectory(root)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	register := func(context.Context, string, int) (uint16, error) { return 7, nil }
	book, err := ledger.Open(t.Context(), own, ledger.Info{Shards: 2, Start: claimHour.Add(-time.Hour)}, register)
	if err != nil {
		t.Fatal(err)
	}
	if err := book.WriteManifest(t.Context(), hourly(1, claimHour)); err != nil {
		t.Fatal(err)
	}

	others := ledger.ViewDirectory(root)
	view, err := ledger.View(t.Context(), others)
	if err != nil || view.Info().ID != 7 || view.Epoch() != 0 {
		t.Fatalf("view: %+v, %v", view.Info(), err)
	}
	seen, written := 0, make(chan error, 1)
	err = ledger.Claim(t.Context(), others, claimHour.Add(time.Hour), func() error {
		go func() { written <- book.WriteManifest(t.Context(), hourly(2, claimHour)) }()
		select {
		case err := <-written:
			t.Errorf("a manifest was written, or refused with %v, while the claimer looked", err)
			written <- err
		case <-time.After(20 * time.Millisecond):
		}
		found, err := view.Manifests(t.Context())
		seen = len(found)
		return err
	})
	if err != nil || seen != 1 {
		t.Fatalf("the claimer saw %d manifests, %v", seen, err)
	}
	if err := <-written; !errors.Is(err, ledger.ErrClaimed) {
		t.Errorf("a manifest of the claimed hour: %v, want ErrClaimed", err)
	}
	if err := book.WriteManifest(t.Context(), hourly(2, claimHour.Add(time.Hour))); err != nil {
		t.Errorf("a manifest of the next hour: %v", err)
	}
	// An earlier claim takes nothing back.
	if err := ledger.Claim(t.Context(), others, claimHour.Add(-time.Hour), func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := book.WriteManifest(t.Context(), hourly(3, claimHour)); !errors.Is(err, ledger.ErrClaimed) {
		t.Errorf("after an earlier claim: %v, want ErrClaimed", err)
	}
	// The next owner starts behind what was claimed.
	again, err := ledger.Open(t.Context(), own, ledger.Info{}, register)
	if err != nil || !again.Info().Start.Equal(claimHour.Add(time.Hour)) {
		t.Errorf("the next owner starts at %v, %v", again.Info().Start, err)
	}
}

// A folder that is spelled as people do is the same folder.
func TestRootAsTyped(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, root := range []string{"./state", "state/", "./state/../state//"} {
		d, err := ledger.OpenDirectory(root)
		if err != nil {
			t.Fatal(err)
		}
		others := ledger.ViewDirectory(root)
		if err := errors.Join(d.Put(t.Context(), "name", nil), others.Put(t.Context(), "000/head", nil), others.Close(), d.Close()); err != nil {
			t.Errorf("%s: %v", root, err)
		}
	}
}
