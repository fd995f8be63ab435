//go:build !race

package listing_test

const crowdSize = 1_000_000
