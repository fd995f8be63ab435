// Package table is a model of a ClickHouse server for the simulation: tables of
// parts, deduplication tokens, the fence, and what kills, restarts and losses of
// power leave of them.
//
// What flows in: INSERTs, drops and faults, one call after the other. What flows
// out: rows, counts and errors, as a client would see them. There is no goroutine,
// no clock and no chance in it: where a real server may do one thing or another
// (which part a loss of power takes, where in an INSERT a kill comes), the caller
// says which.
//
// The model is equal to the engine that ships, statement by statement: see package
// proof, which runs random scripts on both. Replicas are the exception: no engine of
// one process has them, so they follow the documentation. Left out are merges in the
// background, views, engines that collapse rows, asynchronous INSERTs (none of which
// the sink lets happen to exact tables), and kills inside of statements that are no
// INSERTs.
package table
