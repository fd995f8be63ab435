// Package mutant names bugs that are seeded in the code on purpose, each a small
// mistake that somebody could make there. They prove the simulation: a run of it with
// a mutant must fail.
//
// A program that is built without the tag "mutants" has none: On is false for the
// compiler, which leaves the mistake out. With the tag, On says whether a mutant was
// chosen with Choose. The names and descriptions are part of such a build only.
//
// It is a leaf: everything may import it. It owns no goroutine.
package mutant

// ID is one mutant.
type ID int

// None is no mutant.
const None ID = 0

// In pipeline/shard.
const (
	AckEarly ID = iota + 1
	AckAtSeal
	AckWhileReading
	ProbeSkipped
	ProbeBelieved
	FenceSkipped
	FenceEpochKept
	LandBeforeIntent
	DonePastHole
	DoneAhead
	DoubtRetried
	DoubtBelieved
	StartTrusts
	WatermarkBack
	WatermarkForgotten
	WatermarkRecordedLate
	WatermarkByClock
	WatermarkOfNow
	WatermarkOfFastest
	BasePositionsLate
	BaseTooEarly
	PositionEarly
	PositionForgotten
	GenerationKept
	RewriteIgnored
	GoneIsRewritten
	DrainEarly
	UnitTwice
)

// In pipeline/ledger.
const (
	FileUnsynced ID = iota + 101
	FolderUnsynced
	NewFolderUnsynced
	FoundUnsynced
	WrittenInPlace
	ManifestOverwritten
	LoserGoesOn
	SequenceReused
	IntentIsDone
	PruneAll
	EpochKept
	LeaseEpochKept
	LeaseUnchecked
	ChecksumIgnored
)

// In pipeline/engine.
const (
	SnapshotOfNow ID = iota + 401
	ReplaySkipped
	ProbeOfFirst
	FenceOfFirst
	RejectsKept
)

// In operators/window.
const (
	WindowTwice ID = iota + 201
	WindowStale
	LateUnmarked
	LateDropped
	LatenessIgnored
	WatermarkFirst
	RestoreForgetsWatermark
	SnapshotForgetsWindow
)

// In pipeline, pipeline/blob, pipeline/decode and pipeline/source.
const (
	SecondDayDropped ID = iota + 301
	OffsetInChunk
	TailUnchecked
	MarkPastHole
	SweepOnce
)

// In bench/simulation/world, where it does what sinks/clickhouse does.
const (
	InsertUnfenced ID = iota + 501
	InsertHalf
	InsertRenumbered
	FenceUnwaited
	DoubtIsTransient
)
