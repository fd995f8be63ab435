// Package clickhouse lands record batches in any ClickHouse: the embedded one, a
// server of one's own, a server of a cluster.
//
// What flows in: pieces (one record batch each), manifests' piece references, the
// epochs of shard owners. What flows out: rows in MergeTree tables, and counts of
// what is there.
//
// How a piece lands exactly once:
//
//   - One piece is one INSERT of one record batch, and the settings of insertSettings
//     make it one block, so one part. A part is there or not: never a half.
//   - The INSERT reads the fence in its own WHERE (see statement). A writer whose
//     epoch is over is refused by the server, however late its bytes arrive.
//   - No deduplication token. On a table without replication a token is written
//     before the part, so a crash between the two makes the retry a silent no-op.
//     Who does not know what became of an INSERT asks the table (Probe).
//   - A probe alone is not enough: a connection that broke may have left a whole
//     request in the server's socket, which would run after the probe said "nothing
//     there". So the owner itself goes on under a higher epoch after doubt: Fence bars
//     what may still arrive and waits for what runs, then Probe, then Land.
//
// Two wires carry the same statements and settings: HTTP with ArrowStream, and
// native TCP with the record's memory as one block, for servers that offer nothing
// else (see nativeWire). Answers, guarantees and tests are the same over both.
// Reads go through clickhouse-go.
//
// Goroutines: Land starts one that watches the server while the INSERT runs; it and
// the wire's, which write the piece, are done with it when Land returns. Memory:
// records are borrowed for the time of the call.
package clickhouse
