//go:build !race

package kafka

var leftOut []string
