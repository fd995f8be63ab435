// Package backfill lands blobs of the past beside a live pipeline, each byte once:
// those of configured containers (millrace backfill) or of a recorded tree (millrace
// replay).
//
// It is a pipeline of its own: an engine with a ledger of its own, in the folder
// backfill of the state folder and with an id of its own in the target. So intent,
// landing, fence and recovery are those of the product, and neither the watermark nor
// the age limits of the live pipeline come into it.
//
// # How a byte lands once
//
// Three may land the bytes of a blob; each pair is kept apart.
//
// Live and backfill share no hour. The core of a shard reads no blob whose hour ends
// at or before the start that its ledger records, nor one whose hour is further back
// than it keeps offsets (shard.Outside): the first never changes, the second only
// spreads, as a core's clock does not go back. All other hours are left to it. Two
// edges remain, and ledger.Claim closes both: a read that began when its hour was
// inside and ends when it is not, and a machine whose clock is put back. A claim makes
// the live ledger refuse manifests with bytes of the claimed hours, from one moment on,
// and in that moment the manifests that exist are read. So they hold all that the live
// pipeline will ever have landed of these hours. It holds for a pipeline that is
// offline and starts later, too; where there is none yet, its ledger is made first,
// which fixes its start.
//
// What has landed is known from the table batches, to which every ledger's units go
// before its manifests are pruned, and from the manifests of the live ledger, of the
// earlier backfills and of the replays of trees that are not in the table yet. Reading
// goes on behind it: at the end of the last unit, whose bytes are read again and
// compared first. A blob with a hole in what is known, or with rows behind it, is left
// alone and reported: some ledger was lost.
//
// Backfills and replays of one state folder exclude each other by its lock.
//
// # Order
//
// The hours come in order, all interfaces of one before the next, and a shard reads
// one blob at a time; so windows close as they do live. Their rows add up with those
// that are there.
//
// Goroutines: those of the engine and of the listing, gone when calls return. Memory:
// the names of one hour, MaxWaiting blobs in the shards, and the engine's budget.
package backfill
