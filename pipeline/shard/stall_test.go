package shard

import (
	"fmt"
	"testing"
	"time"

	"github.com/millrace/millrace/pipeline"
)

// A target that is away for some time stops the reads: what they brought would lie in
// memory. One landing that comes through lets them go on.
func TestNothingIsReadWhileTheTargetIsAway(t *testing.T) {
	cfg := DefaultConfig()
	c := live(t, cfg, pastHour)
	said := 0
	announce := func(at time.Time) []Action {
		said++
		id := pastBlob(pastHour)
		id.Path = fmt.Sprintf("nic%d/%s", said, id.Path)
		return c.Step(at, Announced{Announcement: pipeline.Announcement{Blob: id, ContentLength: 100}})
	}
	f := only[Fetch](t, announce(pastHour))
	c.Step(pastHour, Decoded{Job: f.Job, Unit: pipeline.Unit{Blob: f.Position.Blob, Offset: 12, Length: 60, Rows: 1, Tail: "7e"}})
	c.Step(pastHour, FetchDone{Job: f.Job, Outcome: Read})
	sealed := pastHour.Add(cfg.MaxBatchAge)
	seal := only[Seal](t, c.Step(sealed, Tick{}))
	c.Step(sealed, Sealed{Seq: seal.Seq, Pieces: []pipeline.PieceRef{{Table: "flows", Rows: 1}}})
	land := only[Land](t, c.Step(sealed, ManifestWritten{Seq: seal.Seq}))

	f = only[Fetch](t, announce(sealed.Add(cfg.StallAfter))) // it may only be slow
	c.Step(sealed.Add(cfg.StallAfter), FetchDone{Job: f.Job, Outcome: NothingNew})
	late := sealed.Add(cfg.StallAfter + time.Second)
	for _, a := range announce(late) {
		if _, ok := a.(Fetch); ok {
			t.Errorf("it reads while its target is away: %+v", a)
		}
	}
	if c.Accepts(1) {
		t.Error("it takes what is being read while its target is away")
	}
	only[Fetch](t, c.Step(late, PieceLanded{Seq: land.Seq, Piece: land.Piece, Epoch: land.Epoch}))
	if !c.Accepts(1) {
		t.Error("it does not go on")
	}
}
