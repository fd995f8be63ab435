// Package rebuild makes a lost ledger again out of what stands in its target.
//
// What the target knows of a ledger: the table ledgers its name, id and shards; the
// table batches the byte ranges behind every batch up to the last checkpoint of each
// shard; the rows themselves carry the batch that wrote them. What it does not know:
// which ranges the batches behind the checkpoint had, and the state of windows that
// were open.
//
// So a rebuilt ledger begins at the checkpoints:
//
//  1. Every shard is fenced at a higher epoch: a former owner, if one still lives,
//     lands nothing more and stops.
//  2. Rows of batches behind the checkpoint, seconds of work, are taken back: deleted
//     from every table. They may be whole or not, and only their ledger knew. Their
//     blobs are looked at first; when one is gone, nothing is done.
//  3. Offsets are those behind the ranges of the table batches, so that the live
//     pipeline reads on from there, under sequence numbers above all that were seen.
//  4. Windows that were open at the checkpoint are computed again: the watermark was
//     at least at the end of the last window that a shard wrote, so a window that ends
//     later had not closed. The ranges with rows in such windows become manifests that
//     only the operators see (pipeline.Manifest.Warm).
//
// The info of the new ledger is written last: after a crash the same command goes on.
//
// Not restored: the positions of event hubs (their events are read again and known),
// hours given to a backfill, and the state of operators other than windows.
package rebuild
