// Package wire is the AMQP 1.0 codec of the emulator: primitive types, frames,
// performatives and message sections.
//
// Bytes flow in, typed values flow out, and the other way round. It owns no
// goroutine. Binary values and payloads that it decodes alias the input, so a
// frame's buffer must not be used again; everything else is copied. Sizes and
// counts are checked before anything is allocated for them.
//
// Source: OASIS "Advanced Message Queuing Protocol (AMQP) Version 1.0", parts 1
// (types), 2 (transport), 3 (messaging) and 5 (security), 29 October 2012.
package wire
