// Package evidence goes from rows back to the bytes that they were made of.
//
// The address of a row (blob, generation, record offset, ordinal) is a function of
// the bytes alone, and the table batches has the byte range of each commit with its
// hash. So a row is proven by reading its range again: the hash says that the bytes
// are those that were read then, and decoding its record again says that the row is
// what they mean. A row of windows has no address of its own; the flow rows with its
// key and time are counted and added up against it, and proven one by one.
//
// What flows in: an address, a commit or a window's key, the target and the blobs.
// What flows out: findings, in the order of the rows. Nothing is written anywhere.
//
// Columns that enrichment adds are not compared: they are a function of the user's
// files at that time, not of the bytes.
//
// It owns no goroutine. Memory: one byte range (reread.MaxBytes at most) and what it
// decodes to.
package evidence
