// Package filter leaves flow rows out before operators and sinks see them.
//
// Record batches of schemas.Flows flow in and out. A list of filters is tried on
// every row; the first one that fits decides whether the row is dropped, and a row
// that none fits is kept. Dropped rows are counted by the filter's name: they are
// in no table and no window, but the count of each byte range is, so that rows
// written = rows landed + entries in quarantine + rows filtered.
//
// A list is compiled once into a Filters, which never changes and may be used from
// any goroutine. The package starts none, and reads neither clock nor files.
package filter
