// Package pipeline holds the data types that move through Millrace and the
// interfaces that have several implementers. It owns no goroutine.
package pipeline
