// Package traffic simulates an estate of cloud network flow logs, with the
// truth about every tuple that it wrote.
//
// Role: it writes PT1H.json block blobs and blob-created events as Azure's
// flow log service and Event Grid do, so that a pipeline can be run, measured
// and reconciled without a cloud. It shares no code with the decoders: a
// mistake made on both sides would cancel out.
//
// What flows in: a Config (seed, volume, fault rates) and, at run time, a
// BlobWriter, a publish function and a clock. What flows out: blocks to the
// writer, events to the publish function, a Truth to whoever asks.
//
// The model has no state that moves. A flow is a pure function of (seed, link,
// calendar minute, index); a record is the set of tuples of all flows of one
// network interface that fall into one of its one-minute windows. Hence
//
//   - the bytes of a record depend on the seed and the estate alone, not on when
//     the simulation was started, how fast it went or how many writers it had;
//   - both ends of a flow tell the same story, each in its own record, without
//     talking to each other;
//   - a flow that crosses the minute, or the hour, begins in one record and ends
//     in another one, possibly of another blob.
//
// Each interface cuts its minutes at its own phase, as in the published
// samples, and a record belongs to the hour in which the middle of its minute
// lies: tuples near the edge of an hour lie in the neighbouring blob, on both
// sides.
//
// Goroutines and memory: Run owns all of them (one dispatcher, Config.Writers
// writers, one courier for held events) and returns when they are gone. Each
// writer owns one generator with its buffers. Estates and their links are
// immutable after they were built and are shared.
//
// Source: the vendor's pages on virtual network flow logs (version 4) and NSG
// flow logs (versions 1 and 2), and on the Event Grid schema of blob storage.
package traffic
