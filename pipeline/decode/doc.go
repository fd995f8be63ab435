// Package decode turns Azure flow logs into Arrow record batches: VNet flow logs
// version 4, NSG flow logs versions 1 and 2, told apart record by record.
//
// Bytes flow in, as regions of the records array of a PT1H.json blob (Batch.Decode)
// or as whole files (Reader). Record batches with the schema schemas.Flows flow
// out, and a pipeline.Reject for everything that could not become a row. Input never
// ends the program and never vanishes: each byte of a region ends in a row, in a
// reject, or is part of what the format carries around them.
//
// The package starts no goroutine, reads no clock and knows neither Azure nor
// ClickHouse nor Kafka. Bytes given are borrowed. Record batches handed out belong
// to the caller, who releases them; their memory comes from the caller's allocator.
//
// # What counts as what
//
//   - Between records whitespace and commas are free; a BOM may stand first.
//   - A record is judged whole: it gives rows and rejected tuples, or it is refused
//     with one reason and gives no row.
//   - category decides the format; without one the member flowRecords means VNet,
//     properties means NSG, and records means a nested {"records":[...]}, whose records
//     count as if they stood alone, each with its own offset.
//   - flowLogVersion must be 4 or absent, Version must be 1 or 2.
//   - Members come in any order; those of no meaning for the format are skipped at any
//     depth. null is absent. A member with a meaning that comes twice refuses the record,
//     and so do absent flowRecords, flows, flowGroups and flowTuples: a renamed member
//     must not lose rows in silence.
//   - A comma before a closing bracket is tolerated: published samples have it.
//   - Texts that become columns must be valid UTF-8 without NUL and without halves of
//     surrogate pairs. Texts that are skipped only have to be JSON.
//   - The ordinal counts every element of flowTuples, good or bad, from 0.
//   - A time below 10^11 is in seconds, else in milliseconds.
//   - When several things are wrong, the reason is the first of: json_truncated,
//     limit_exceeded by depth, json_syntax, and then in the record limit_exceeded by
//     members, record_shape of its own members, unknown_version, its texts, and at last
//     text_encoding, limit_exceeded and record_shape of what lies below. In a tuple it is
//     the first bad field, and time_out_of_range only when all else is good.
//
// Source: Microsoft, "Virtual network flow logs" and "Flow logging for network
// security groups", azure-docs, editions of 2025; real blobs under testdata.
package decode
