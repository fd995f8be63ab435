package emulator

import (
	"encoding/binary"
	"math/bits"
)

// partitionOf gives the partition of a key: the same key always lands in the same
// partition, and in the one that the .NET and JavaScript buffered producers
// compute for it.
func partitionOf(key string, partitions int) int {
	c, b := lookup3([]byte(key))
	p := int(int16(c^b)) % partitions
	return max(p, -p)
}

// lookup3 hashes the bytes to two words, with both seeds 0.
//
// Source: Bob Jenkins, lookup3.c (hashlittle2), May 2006, public domain.
func lookup3(k []byte) (c, b uint32) {
	a := 0xdeadbeef + uint32(len(k))
	b, c = a, a
	if len(k) == 0 {
		return c, b
	}
	for ; len(k) > 12; k = k[12:] {
		a += binary.LittleEndian.Uint32(k)
		b += binary.LittleEndian.Uint32(k[4:])
		c += binary.LittleEndian.Uint32(k[8:])
		a, b, c = mix(a, b, c)
	}
	var tail [12]byte
	copy(tail[:], k)
	a += binary.LittleEndian.Uint32(tail[:])
	b += binary.LittleEndian.Uint32(tail[4:])
	c += binary.LittleEndian.Uint32(tail[8:])
	return final(a, b, c)
}

func mix(a, b, c uint32) (uint32, uint32, uint32) {
	a, c = (a-c)^bits.RotateLeft32(c, 4), c+b
	b, a = (b-a)^bits.RotateLeft32(a, 6), a+c
	c, b = (c-b)^bits.RotateLeft32(b, 8), b+a
	a, c = (a-c)^bits.RotateLeft32(c, 16), c+b
	b, a = (b-a)^bits.RotateLeft32(a, 19), a+c
	c, b = (c-b)^bits.RotateLeft32(b, 4), b+a
	return a, b, c
}

func final(a, b, c uint32) (uint32, uint32) {
	c = (c ^ b) - bits.RotateLeft32(b, 14)
	a = (a ^ c) - bits.RotateLeft32(c, 11)
	b = (b ^ a) - bits.RotateLeft32(a, 25)
	c = (c ^ b) - bits.RotateLeft32(b, 16)
	a = (a ^ c) - bits.RotateLeft32(c, 4)
	b = (b ^ a) - bits.RotateLeft32(a, 14)
	c = (c ^ b) - bits.RotateLeft32(b, 24)
	return c, b
}
