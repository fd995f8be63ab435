// Package pipeline holds the data types that move through Millrace and the
// interfaces that have several implementers. It owns no goroutine. This page is
// the project's architecture.
//
// # The way of the data
//
//	Event Grid -> Event Hubs --+                                                             +-> ClickHouse
//	              Kafka -------+-> announce -> shard -> fetch -> decode -> operate -> land --+
//	listing, directory --------+                 |                                           +-> Kafka
//	                                             +-- ledger: intent before landing, done after, acknowledge last
//
// An announcement says that a blob may have grown. It is a hint: announcements are
// lost, doubled and reordered, and the sweeper (source/listing) finds what none
// told of. The blob is the truth, and the ledger alone says what of it has landed.
//
//   - source/… gives announcements; announce reads them out of events.
//   - shard decides. A stream (one NIC over the hours) always belongs to one shard:
//     the hash of its blob names without the hour. The core of a shard is a state
//     machine without goroutines, clock or I/O; its package comment and
//     shard/crash_test.go are the place to begin reading.
//   - blob reads the new bytes; decode makes rows of them; transforms (operators/filter,
//     operators/enrich) leave rows out and put columns behind them; operators compute;
//     sinks land.
//   - engine carries out what the cores decide: goroutines, memory budget,
//     back-pressure, stop.
//   - ledger keeps manifests, bases and marks; see its layout below.
//
// # Exactly once
//
// A unit is a byte range of a blob that ends at a record's end. A batch is a list
// of units with the watermark that holds after it; its sequence number has no
// gap. With the bytes of its units a batch decides everything that lands: rows,
// quarantine entries, closed windows. A piece is what lands of a batch in one
// partition of one table: one INSERT of one block, so it is there as a whole or
// not at all. A sink may divide a batch otherwise, as long as that holds: Kafka takes
// all of it in one transaction. With several sinks a batch is done when it has
// landed in all that its manifest names.
//
// The order of a batch is fetch, decode, operate, intent (the manifest is durable),
// land (every piece is durable), done (the ledger says so), acknowledge (the
// sources hear of it). A crash in any place leaves the batch before its intent,
// and then nothing of it has landed, or behind it, and then the next owner replays
// the same bytes through the same operators, asks the target which pieces are
// there, and lands the others.
//
// Three things could still land a piece twice; each has its guard.
//
//   - The INSERT of a killed owner stands in some buffer and arrives late. The next
//     owner writes its epoch to the table fence first, waits until no query of an
//     older epoch runs, and only then probes; every INSERT carries its epoch and is
//     refused when the fence has a higher one.
//   - A reply is lost while the owner lives: the landing is in doubt. The owner
//     raises its own epoch and does the same.
//   - Two owners: the ledger's folder is locked; a shared ledger has an owner that gives
//     signs of life (ledger.Lease). A manifest is created, never replaced: whoever comes
//     second recovers again, if it is the owner, and adopts what it found.
//
// Whatever is not a function of the bytes stands in the manifest: the watermark
// (which depends on the clock through idleness and clamping) and, for a blob
// without an hour in its path, the clock at its fetch.
//
// All of this is tried in simulated worlds (bench/simulation, make sim): one seed draws
// which of some forty kinds of faults there are, and decides the order of everything;
// engine.ByHand runs there what goroutines run in production. An auditor that shares no
// code with the pipeline then compares what was written with what has landed.
//
// The address of a row (blob, generation, record_offset, ordinal) is a function of
// the bytes alone, so one query over the table proves that nothing is twice in it,
// and `millrace evidence` goes the way back from a row to its bytes.
//
// A row that was refused can land later: `millrace quarantine replay` reads the
// quarantined ranges again and lands what is good now through an engine and a ledger
// of its own, so the same argument holds for it; see cmd/internal/quarantine.
//
// Blobs of the past land through `millrace backfill` and `millrace replay`, again with
// an engine and ledgers of their own. An hour is the live pipeline's or theirs, never
// both's: the live one reads no hour before its start or behind its age limit, and a
// claim in its ledger makes it refuse manifests with bytes of hours that were given
// away, should a read have begun before. What each ledger has landed stands in the
// target's table of batches; reading goes on behind it. See cmd/internal/backfill.
//
// Days that people delete are told with millrace forget: a piece in doubt that
// lies in one counts as landed. millrace verify recounts rows, windows and ledger
// from the blobs; see cmd/internal/verify.
//
// # Ledger layout
//
//	claim                      hours given to a backfill: no manifest has bytes of them
//	info, name, epoch          what the ledger is; the epoch rises at every start
//	owner                      of a shared ledger: who, since which epoch
//	SSS/m/NNNNNNNNNNN          manifest of batch N of shard S; carries "done through"
//	SSS/head                   "done through", written when no manifest is near
//	SSS/base/NNNNNNNNNNN       state after batch N: positions, streams, operators
//	transforms/HASH            a version of filters or enrichment that some batch got
//	data/HASH                  content of a file that one needs
//
// A base is written every minute, 256 batches or 16 MiB of input, and by a start that
// had to replay any batch, before it takes up new ones: a pipeline that is killed again
// and again replays one life, not all. The newest two are kept, with the manifests behind the
// older one, so a damaged base costs a longer replay and nothing else.
//
// # Filters and enrichment
//
// Rows pass transforms before operators and sinks see them: filters, which leave
// some out, then enrichment, which puts columns behind the others. Neither is a
// function of the bytes, so a batch records what it got:
//
//   - It takes the versions that are current when it is sealed.
//   - The ledger keeps their recipes and the files' content, under the hash of it,
//     before the manifest that names them is written.
//   - A replay makes them again from there, whatever files and configuration have
//     become, and checks that it leaves out the same number of rows of each range.
//   - They are removed once every shard's older base is behind the last batch that
//     named them: no recovery reads one that needs them any more.
//
// Rows that are left out move the watermark, and nothing else: they are in no table
// and no window. Each range says how many it lost, so rows written = rows landed +
// entries in quarantine + rows filtered.
//
// # Time
//
// A stream's watermark is its highest event time (never further ahead of the clock
// than five minutes) minus the out-of-orderness; a stream without announcements
// for three minutes is idle. The shard's watermark is the least of its streams
// that are not idle, and never goes back. A window closes once, when the watermark
// passes its end; rows that come later make correction rows that add up. Event
// times outside the blob's hour -1 h, +2 h go to quarantine.
//
// # Memory
//
// A read reserves memory for each chunk from one budget before it takes it; the
// reservation goes with the chunk into its batch and is given back when the batch
// has landed. When a read has to wait, the shards are told and seal their open
// batches. A full budget stops the reads, full shards stop the sources.
//
// # Who may import whom
//
// cmd -> bench -> (pipeline/*, operators, sinks) -> pipeline -> schemas. Siblings
// do not know each other; engine, which assembles them, is the exception, and
// leaves such as pipeline/secret and operators/sketch are free to all. The Event
// Hubs emulator imports nothing of this module, and the traffic simulator shares
// nothing with the decoders. deploy/layers holds the test.
package pipeline
