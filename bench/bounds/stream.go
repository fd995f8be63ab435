package main

import (
	"math/rand/v2"
)

// heavies are so many keys that are heavy by rows, and so many by bytes.
const heavies = 100

// row is one flow of a stream.
type row struct {
	key            uint32
	packets, bytes uint64
}

// stream gives rows in an order of its own, until it has no more.
type stream func() (row, bool)

// small gives a row as most are.
func small(rng *rand.Rand, key uint32) row {
	return row{key, 1 + rng.Uint64N(20), 40 + rng.Uint64N(1460)}
}

// heavyRows are the rows of the heavy keys, behind the light ones in number: some
// with many rows, some with few rows of many bytes. They come in a random order.
func heavyRows(rng *rand.Rand, keys, most int) []row {
	var rows []row
	for i := range heavies {
		for range most/2 + i*most/(2*heavies) {
			rows = append(rows, small(rng, uint32(keys+i)))
		}
		for range 3 {
			rows = append(rows, row{uint32(keys + heavies + i), 1 << 20, 1<<30 + rng.Uint64N(1<<30)})
		}
	}
	rng.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	return rows
}

// scattered gives each light key once, and among them the heavy rows from a share of
// the light keys on: 0 scatters them over everything, 0.8 gives the light keys all the
// time to take the room.
func scattered(rng *rand.Rand, keys int, heavy []row, from float64) stream {
	at := 0
	return func() (row, bool) {
		left := keys - at
		if left == 0 && len(heavy) == 0 {
			return row{}, false
		}
		if len(heavy) > 0 && at >= int(from*float64(keys)) && rng.IntN(left+len(heavy)) < len(heavy) {
			r := heavy[0]
			heavy = heavy[1:]
			return r, true
		}
		at++
		return small(rng, uint32(at-1)), true
	}
}

// zipf gives each key once, and as many rows of keys after Zipf's law among them.
func zipf(rng *rand.Rand, keys int) stream {
	// A walk with a step that has no divisor in common with keys meets each key.
	const step = 7_368_787
	law := rand.NewZipf(rng, 1.1, 1, uint64(keys-1))
	once, more, at := keys, keys, uint64(0)
	return func() (row, bool) {
		switch {
		case once+more == 0:
			return row{}, false
		case rng.IntN(once+more) < more:
			more--
			return small(rng, uint32(law.Uint64()*step%uint64(keys))), true
		}
		once--
		at = (at + step) % uint64(keys)
		return small(rng, uint32(at)), true
	}
}

// ordinary gives rows of so few keys that each has room.
func ordinary(rng *rand.Rand, keys, rows int) stream {
	return func() (row, bool) {
		rows--
		return small(rng, uint32(rng.IntN(keys))), rows >= 0
	}
}
