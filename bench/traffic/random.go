package traffic

import "math/bits"

// golden is 2^64 divided by the golden ratio: steps of it spread evenly.
const golden = 0x9E3779B97F4A7C15

// mix is the output function of SplitMix64: a bijection whose bits all depend
// on all bits of x. With it a random number is a function of its place, not of
// the numbers drawn before.
//
// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators",
// OOPSLA 2014.
func mix(x uint64) uint64 {
	x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
	x = (x ^ (x >> 27)) * 0x94D049BB133111EB
	return x ^ (x >> 31)
}

// place folds numbers into one: the place at which something random happens.
func place(seed uint64, at ...uint64) uint64 {
	h := mix(seed + golden)
	for _, a := range at {
		h = mix(h ^ (a+1)*golden)
	}
	return h
}

// Purposes keep the random numbers of different questions apart. They are the
// first number of a place.
const (
	forSubscription uint64 = iota + 1
	forVNet
	forSubnet
	forNIC
	forLink
	forShort
	forLong
	forRecord
	forBlock
	forEvent
	forNoise
	forResource
)

// below maps h to [0, n) by its upper bits.
func below(h, n uint64) uint64 {
	hi, _ := bits.Mul64(h, n)
	return hi
}

// chance is true for the given share of all h.
func chance(h uint64, share float64) bool {
	return float64(h>>11) < share*(1<<53)
}

const hexDigits = "0123456789abcdef"

// hex returns the lower n hex digits of two words.
func hex(hi, lo uint64, n int) string {
	b := make([]byte, 32)
	for i := 15; i >= 0; i-- {
		b[i], b[16+i] = hexDigits[hi&15], hexDigits[lo&15]
		hi, lo = hi>>4, lo>>4
	}
	return string(b[32-n:])
}

// guid returns a version 4 UUID, a function of h.
func guid(h uint64) string {
	hi := mix(h)&^0xF000 | 0x4000
	lo := mix(h+1)&^(3<<62) | 2<<62
	s := hex(hi, lo, 32)
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}
