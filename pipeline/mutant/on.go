//go:build mutants

package mutant

import (
	"fmt"
	"sync/atomic"
)

// Mutant is one seeded bug.
type Mutant struct {
	ID   ID
	Name string // that of its constant
	What string // what the program does wrong, for people
}

var (
	chosen  atomic.Int64
	reached atomic.Int64
)

// On says whether the mutant was chosen.
func On(id ID) bool {
	if ID(chosen.Load()) != id {
		return false
	}
	reached.Add(1)
	return true
}

// Choose turns one mutant on and all others off; None turns all off. Whatever runs at
// that moment sees the change.
func Choose(id ID) {
	chosen.Store(int64(id))
	reached.Store(0)
}

// Reached counts how often the code of the chosen mutant was come to.
func Reached() int64 { return reached.Load() }

// Named finds a mutant.
func Named(name string) (Mutant, error) {
	for _, m := range All {
		if m.Name == name {
			return m, nil
		}
	}
	return Mutant{}, fmt.Errorf("mutant %q: there is none of this name", name)
}

// All lists the mutants, by where they are seeded.
var All = []Mutant{
	{AckEarly, "AckEarly", "acknowledges when a read ends, not when its rows are durable"},
	{AckAtSeal, "AckAtSeal", "acknowledges when a batch closes, before its manifest is durable"},
	{AckWhileReading, "AckWhileReading", "acknowledges at once what is announced while its blob is being read"},
	{ProbeSkipped, "ProbeSkipped", "lands again after a doubt without asking what is there"},
	{ProbeBelieved, "ProbeBelieved", "takes a piece of which the probe found nothing for landed"},
	{FenceSkipped, "FenceSkipped", "probes after a doubt without setting the fence first"},
	{FenceEpochKept, "FenceEpochKept", "sets the fence after a doubt without raising the epoch"},
	{LandBeforeIntent, "LandBeforeIntent", "lands while the manifest is still being written"},
	{DonePastHole, "DonePastHole", "moves the done mark past a batch that has not landed"},
	{DoneAhead, "DoneAhead", "lets a manifest say that all batches before it are done"},
	{DoubtRetried, "DoubtRetried", "sends a piece again after a lost answer, without fence and probe"},
	{DoubtBelieved, "DoubtBelieved", "takes a lost answer for success"},
	{StartTrusts, "StartTrusts", "neither fences nor probes at the start"},
	{WatermarkBack, "WatermarkBack", "lets the watermark go back when a slow stream wakes up"},
	{WatermarkForgotten, "WatermarkForgotten", "begins with the base's watermark, whatever later manifests say"},
	{WatermarkRecordedLate, "WatermarkRecordedLate", "records the watermark of when the manifest is written, not that of the batch"},
	{WatermarkByClock, "WatermarkByClock", "moves the watermark with the wall clock"},
	{WatermarkOfNow, "WatermarkOfNow", "replays a batch at the watermark of now instead of the recorded one"},
	{WatermarkOfFastest, "WatermarkOfFastest", "moves the watermark with the fastest stream instead of the slowest"},
	{BasePositionsLate, "BasePositionsLate", "writes a base with the positions of now beside the operators' state of then"},
	{BaseTooEarly, "BaseTooEarly", "writes a base before its batch has landed"},
	{PositionEarly, "PositionEarly", "moves a blob's position when a read begins, before its rows are decoded"},
	{PositionForgotten, "PositionForgotten", "forgets the positions of blobs when their hour is over"},
	{GenerationKept, "GenerationKept", "reads a rewritten blob under the generation that it had"},
	{RewriteIgnored, "RewriteIgnored", "goes on behind the old position in a rewritten blob"},
	{GoneIsRewritten, "GoneIsRewritten", "begins a blob anew when the store says once that it is not there"},
	{DrainEarly, "DrainEarly", "stops with a final base while a batch has not landed"},
	{UnitTwice, "UnitTwice", "does not move a blob's position when a batch is recovered"},

	{FileUnsynced, "FileUnsynced", "does not sync a ledger file before it is published"},
	{FolderUnsynced, "FolderUnsynced", "does not sync the folder after a ledger file got its name"},
	{NewFolderUnsynced, "NewFolderUnsynced", "does not sync the folder above a new one"},
	{FoundUnsynced, "FoundUnsynced", "builds on ledger files that a killed owner may not have synced"},
	{WrittenInPlace, "WrittenInPlace", "writes ledger files in place instead of beside and renamed"},
	{ManifestOverwritten, "ManifestOverwritten", "replaces a manifest that another owner created"},
	{LoserGoesOn, "LoserGoesOn", "goes on with its own batch when another owner's manifest was first"},
	{SequenceReused, "SequenceReused", "gives a batch the number of one that is in doubt"},
	{IntentIsDone, "IntentIsDone", "takes every batch with a manifest for landed"},
	{PruneAll, "PruneAll", "prunes manifests that no base covers yet"},
	{EpochKept, "EpochKept", "opens a ledger under the epoch of the owner before"},
	{LeaseEpochKept, "LeaseEpochKept", "takes a shared ledger over under the epoch of the owner before"},
	{LeaseUnchecked, "LeaseUnchecked", "becomes owner even when somebody else did in the meantime"},
	{ChecksumIgnored, "ChecksumIgnored", "reads a ledger file whose checksum is wrong"},

	{SnapshotOfNow, "SnapshotOfNow", "writes a base with the operators' state of now beside the positions of then"},
	{ReplaySkipped, "ReplaySkipped", "does not show batches that have landed to the operators again"},
	{ProbeOfFirst, "ProbeOfFirst", "probes the first piece of a batch and takes the others to be like it"},
	{FenceOfFirst, "FenceOfFirst", "sets the fence of shard 0 instead of its own"},
	{RejectsKept, "RejectsKept", "puts the quarantine of a batch into the next one too"},

	{WindowTwice, "WindowTwice", "keeps a window after it was written"},
	{WindowStale, "WindowStale", "adds rows to a window that has been written and forgotten"},
	{LateUnmarked, "LateUnmarked", "writes late rows without marking them as a correction"},
	{LateDropped, "LateDropped", "drops late rows"},
	{LatenessIgnored, "LatenessIgnored", "closes windows without waiting for the allowed lateness"},
	{WatermarkFirst, "WatermarkFirst", "moves the watermark before the rows of the batch are folded"},
	{RestoreForgetsWatermark, "RestoreForgetsWatermark", "restores windows without the watermark that they were saved with"},
	{SnapshotForgetsWindow, "SnapshotForgetsWindow", "saves all open windows but the newest"},

	{SecondDayDropped, "SecondDayDropped", "drops the rows behind midnight of a batch that spans two days"},
	{OffsetInChunk, "OffsetInChunk", "counts a record's offset from its chunk instead of its blob"},
	{TailUnchecked, "TailUnchecked", "does not compare the bytes before a blob's position"},
	{MarkPastHole, "MarkPastHole", "saves the position of the last acknowledged message past others that are not"},
	{SweepOnce, "SweepOnce", "lists an hour once and never again"},

	{InsertUnfenced, "InsertUnfenced", "sends an INSERT that does not look at the fence"},
	{InsertHalf, "InsertHalf", "sends half of a piece"},
	{InsertRenumbered, "InsertRenumbered", "gives every attempt of a piece a batch number of its own"},
	{FenceUnwaited, "FenceUnwaited", "does not wait for older INSERTs that still run when the fence is set"},
	{DoubtIsTransient, "DoubtIsTransient", "calls a broken connection a refusal that may be tried again"},
}
