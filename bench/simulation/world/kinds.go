package world

// Kind is one kind of fault.
type Kind int

// Kinds of faults. Each happens in some seeds, at a rate that the seed draws.
const (
	EventLost Kind = iota
	EventDoubled
	EventReordered
	EventLate // by minutes up to 24 hours
	HubRedelivered
	HubExpired
	CheckpointFailed
	BlobMissing
	BlobThrottled
	BlobCut
	BlobGrewInRead
	BlobReplaced
	BlobAway
	ListingFailed
	InsertRefused
	InsertUnsent
	InsertUnanswered
	InsertLate
	InsertKilled
	InsertSlow
	ServerKilled
	ServerAway
	QuestionFailed
	DropOfNothing
	TupleMalformed
	ProcessKilled
	ProcessKilledInside
	ProcessFrozen
	ProcessStopped
	PowerLost
	DiskFull
	DiskError
	FileFlipped
	FileCut
	ClockJumped
	ClockDrifted
	MemoryShort
	StoreFailed
	StoreUnanswered
	LateOwner
	TopicFailed
	TopicUnanswered
	TopicLateEnd
	TopicShutOut
	TopicExpired
	kinds
)

var kindNames = [kinds]string{
	EventLost: "event_lost", EventDoubled: "event_doubled", EventReordered: "event_reordered", EventLate: "event_late",
	HubRedelivered: "hub_redelivered", HubExpired: "hub_expired", CheckpointFailed: "checkpoint_failed",
	BlobMissing: "blob_missing", BlobThrottled: "blob_throttled", BlobCut: "blob_cut", BlobGrewInRead: "blob_grew_in_read",
	BlobReplaced: "blob_replaced", BlobAway: "blob_away", ListingFailed: "listing_failed",
	InsertRefused: "insert_refused", InsertUnsent: "insert_unsent", InsertUnanswered: "insert_unanswered", InsertLate: "insert_late",
	InsertKilled: "insert_killed", InsertSlow: "insert_slow", ServerKilled: "server_killed", ServerAway: "server_away",
	QuestionFailed: "question_failed", DropOfNothing: "drop_of_nothing", TupleMalformed: "tuple_malformed",
	ProcessKilled: "process_killed", ProcessKilledInside: "process_killed_inside", ProcessFrozen: "process_frozen", ProcessStopped: "process_stopped",
	PowerLost: "power_lost", DiskFull: "disk_full", DiskError: "disk_error", FileFlipped: "file_flipped", FileCut: "file_cut",
	ClockJumped: "clock_jumped", ClockDrifted: "clock_drifted", MemoryShort: "memory_short",
	StoreFailed: "store_failed", StoreUnanswered: "store_unanswered", LateOwner: "late_owner",
	TopicFailed: "topic_failed", TopicUnanswered: "topic_unanswered", TopicLateEnd: "topic_late_end",
	TopicShutOut: "topic_shut_out", TopicExpired: "topic_expired",
}

// String names the kind as the summary does.
func (k Kind) String() string { return kindNames[k] }

// Kinds gives all of them.
func Kinds() []Kind {
	all := make([]Kind, kinds)
	for i := range all {
		all[i] = Kind(i)
	}
	return all
}
