// Package enrich puts columns behind flow rows: what the ids of Azure say, what a
// user's own file says of addresses, and country and autonomous system out of
// MaxMind DB files.
//
// Record batches of schemas.Flows flow in, those of schemas.EnrichedFlows out; the
// columns of the log are shared, not copied. What is unknown stays empty, or 0.
//
// An Enricher is one version of the files' content: it never changes, may be used
// from any goroutine, and can be made again from its recipe and data. The package
// starts no goroutine, and reads neither clock nor files.
package enrich
