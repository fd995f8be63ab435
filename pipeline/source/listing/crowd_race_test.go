//go:build race

package listing_test

// crowdSize is smaller under the race detector, which makes a name ten times as
// dear.
const crowdSize = 50_000
