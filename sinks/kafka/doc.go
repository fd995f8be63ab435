// Package kafka lands batches in topics of Apache Kafka, exactly once, or at least
// once where the broker offers no more.
//
// What flows in: pieces, each all rows of one batch (Plan makes them), and the
// epochs of shard owners. What flows out: messages, as JSON (one a row) or as Arrow
// (IPC streams of at most MaxArrowMessage bytes), and one progress record a batch.
//
// How a batch lands exactly once:
//
//   - Its rows and its progress record are one transaction. Readers with
//     isolation.level=read_committed see all of it or nothing.
//   - Each shard has one transactional id and one transaction at a time. Who begins to
//     write as that id (InitProducerID) ends the open transaction of whoever wrote
//     before, and shuts that writer out; only then does it read what has landed. So
//     nothing can land between what it reads and what it writes.
//   - The progress record holds the batches that landed last and the owner's epoch.
//     Whoever finds a higher epoch than its own stops: ErrFenced. Being shut out alone
//     says nothing: an older owner that wakes up shuts the rightful one out before it
//     sees the epoch and stops, and the rightful one then begins anew.
//   - After any answer that is unclear the writer begins anew, also when the client has
//     mended it by itself: a request that was sent twice may arrive late, and end a
//     later transaction on clusters with transaction.version below 2.
//
// A commit whose answer is lost is doubt: the core fences and probes, which reads the
// progress topic to its end. Everything that fails before the commit is sent is
// certain not to be there.
//
// Batches of a shard are written in the order of their numbers, and rows with one
// key go to one partition: a reader finds the rows of a network interface in order.
//
// AtLeastOnce is the sink for brokers without transactions. It cannot be probed, so
// after a crash or doubt rows come again; messages carry batch_id and rows, by which
// a reader drops what it knows.
//
// Goroutines are those of the Kafka clients: one client a shard, one that reads the
// progress topic; Close ends them. Memory: records are borrowed for the time of the
// call; what waits to be sent is bounded by maxBuffered a shard.
package kafka
