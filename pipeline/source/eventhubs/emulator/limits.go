package emulator

import "time"

// Limits of one connection and of what waits for it.
const (
	maxSessions       = 1024    // channels of a connection
	maxLinks          = 256     // links of a session
	maxPartialBytes   = 8 << 20 // of messages that have not arrived whole, per connection
	maxReplies        = 256     // answers that wait for credit, per link
	maxClaims         = 1024    // tokens of a connection
	maxReaders        = 5       // receivers without owner level per consumer group and partition
	maxKeyLength      = 128     // characters of a partition key
	saslFrameLimit    = 8 << 10 // bytes of a frame before the login is done
	incomingWindow    = 4096    // transfers that a peer may send before it waits for us
	producerCredit    = 300     // messages that a producer may send before it waits for us
	pumpEvents        = 256     // events written to one link before the others have their turn
	flushBytes        = 64 << 10
	handshakeTime     = 10 * time.Second // from the connection to its open frame
	writeTime         = 30 * time.Second // a peer that does not read so long is dropped
	lingerTime        = 500 * time.Millisecond
	minPeerIdle       = 20 * time.Millisecond // a shorter idle time-out of the peer is refused
	housekeepingEvery = time.Second
)
