// Package eventhubs is a source of announcements: it reads the messages of an event
// hub, all partitions in one process.
//
// In flow messages over AMQP; out flow deliveries, one per message that holds an
// announcement. A message is acknowledged when everything behind its announcements
// is durable; a checkpoint of a partition is the end of the longest run of
// acknowledged messages from its beginning, so a restart reads again at most what
// was not acknowledged, and skips nothing. Announcements are hints: reading one
// twice costs a look at a blob, and one that expired unread is found by the sweeper.
//
// Run owns all goroutines: one per partition, one that writes checkpoints, and
// those of the Event Hubs client. Memory is bounded by Config.Prefetch and
// Config.MaxUnacknowledged messages per partition.
package eventhubs
