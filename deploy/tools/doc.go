// Package tools pins the programs that check this source tree, in a module of
// its own so that the product's go.mod stays the product's. Run one with
// `go tool -modfile=deploy/tools/go.mod NAME`; the Makefile does.
package tools
