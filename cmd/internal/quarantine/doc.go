// Package quarantine lists, shows and replays what could not become rows.
//
// An entry of the table quarantine holds an address, a reason and an excerpt; the
// bytes stay in their blob. A replay reads them there again, with the decoder of
// this program, and lands the tuples that are good now.
//
// # How a tuple lands once
//
// A replay is a small pipeline beside the live one: an engine of one shard with a
// ledger of its own (in the folder quarantine of the state folder, with an id of its
// own in the target), so intent, landing, fence and recovery are those of the
// product. In a loop over the entries, a round at a time, it
//
//  1. reads the bytes of the entries and decodes them: this gives the addresses of
//     the tuples that are good now,
//  2. asks the table flows which of these addresses it has,
//  3. runs the engine over exactly the others (pipeline.Replay), up to the end of
//     input, so that windows close and their rows add up to those that are there.
//
// A replay that was killed has left a ledger with a batch behind its intent. The
// next one finishes it before anything else, and so finds its rows in step 2.
// Nothing else lands these addresses: the live pipeline never reads a byte twice,
// and the folder's lock admits one replay at a time.
//
// The tuples of a record that the live pipeline landed are not touched: a replay
// never asks for a record but for ordinals of it. A record or range that was refused
// as a whole has no such tuples; when some of its tuples are still bad, they stay
// behind its entry and the next replay asks for them again.
//
// What stands at an address today may be other bytes than those that were refused.
// So the excerpt, the length and the blob's generation are compared first; where
// they differ, the source has expired. Two replays of different state folders into
// one target are not kept apart: one pipeline has one state folder.
//
// Goroutines: those of the engine, and a few readers; all are gone when the calls
// return. Memory: a round holds the addresses of at most roundBytes of text, and the
// engine has its budget.
package quarantine
