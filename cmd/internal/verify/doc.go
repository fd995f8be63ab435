// Package verify recounts a period: rows against the byte ranges that every commit
// recorded, windows against rows, and, on the full level, all of it against the blobs
// themselves.
//
// # What is compared
//
// The quick level asks the target alone. For each hour it compares the rows of every
// commit in every blob with the counts that the table batches and the ledgers have of
// them, looks for addresses that are there twice, for byte ranges with holes or
// overlaps, for entries of the quarantine, and adds the rows up against the windows.
//
// The full level lists the blobs of the period, reads their bytes again, decodes them
// with the decoder of this program, and compares a sum of hashes, one for each row,
// with the same sum computed by ClickHouse. The sum does not depend on the order of
// rows. Rows are fetched only of the byte ranges where the sums differ.
//
// # Beside a running pipeline
//
// The ledgers are read first, then the table batches, then rows. So every commit that
// was done when its ledger was read has all its rows in what is read later, and a
// commit that was not is pending, whatever of it is there. Windows are compared shard
// by shard, over commits that were done, and as far as the shard's watermark had come
// with them.
//
// # What is not missing
//
// Rows behind a table's TTL, days that people have deleted and told of with millrace
// forget, and bytes of blobs that are gone are expired: counted, never called missing,
// and never landed again.
//
// # Repair
//
// A repair puts rows back as they were, under the commit that had them, so that
// everything that counts by commit is right again. It has a ledger of its own, in the
// folder repair of the state folder: its lock admits one repair at a time, and its
// epoch fences the INSERTs of one that was killed. Then the tables are compared anew,
// so what lands is what is missing at that moment, each piece as one part. What is
// surplus is deleted row by row, by part and place, so that the good copy stays.
//
// Goroutines: a few readers of blobs, gone when Run returns. Memory: the byte ranges
// of one hour's commits, one byte range of each reader with what it decodes to, and
// at most MaxFindings findings.
package verify
