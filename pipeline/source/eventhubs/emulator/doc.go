// Package emulator is an Azure Event Hubs namespace in one process: AMQP 1.0 over
// plain TCP, as the official clients speak it. It is meant for tests, for the demo
// and for development without a cloud; it keeps everything in memory.
//
// Events flow in over producer links or through Publish, into the log of a
// partition, and out over receiver links. What it leaves out stands in SKIPPED.md.
//
// Goroutines: Run owns the listener, one housekeeper, and two goroutines per
// connection (one reads frames, one owns all state of the connection); it returns
// when they are gone. Memory is bounded by the retention of each partition, the
// number of connections, and per connection by the limits in limits.go.
//
// It imports nothing of the rest of Millrace: a mistake in the client must not be
// repeated here.
package emulator
