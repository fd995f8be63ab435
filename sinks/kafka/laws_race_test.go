//go:build race

package kafka

import "github.com/millrace/millrace/sinks/sinktest"

// leftOut is a law that takes half a minute with the race detector, in one goroutine.
var leftOut = []string{sinktest.BigPart}
