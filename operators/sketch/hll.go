// Package sketch holds summaries of streams that merge: the summary of two parts
// is the merge of the parts' summaries, in any order.
//
// Values come in as 64-bit hashes, registers and estimates come out. The package
// owns no goroutine; a sketch belongs to whoever made it and is not safe for
// concurrent use.
package sketch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"

	"github.com/zeebo/xxh3"
)

// Size of a HyperLogLog. Both are part of the format of stored registers: two
// sketches merge only when they were made with the same precision and hash.
const (
	// Precision is the number of hash bits that choose the register.
	Precision = 11
	// Registers is the number of registers. The standard error of an estimate is
	// 1.04/sqrt(Registers), 2.3 %.
	Registers = 1 << Precision
	// MaxRank is the highest value of a register: one more than the zeros that the
	// other 53 bits can start with.
	MaxRank = 64 - Precision + 1
)

// hashSeed is part of the format of stored registers and may never change.
const hashSeed = 0x6d696c6c72616365

// Hash gives the hash of a value for Add. Equal bytes have equal hashes for ever,
// in every process.
func Hash(value []byte) uint64 { return xxh3.HashSeed(value, hashSeed) }

// HashString is Hash of the bytes of a text.
func HashString(value string) uint64 { return xxh3.HashStringSeed(value, hashSeed) }

// HashUint64 is Hash of the value's eight bytes, lowest first.
func HashUint64(value uint64) uint64 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], value)
	return xxh3.HashSeed(b[:], hashSeed)
}

// ErrRegister says that a register cannot have come out of a sketch.
var ErrRegister = errors.New("register out of range")

// Register is one register that is not zero.
type Register struct {
	Index uint16 // 0 to Registers-1
	Value uint8  // 1 to MaxRank
}

// HyperLogLog estimates how many distinct values it was given. The zero value is
// empty and ready.
//
// Few values are held in a small hash table of registers (4 bytes each, the size
// of most groups), many in an array of Registers bytes. Which of both is used
// shows in no result.
//
// Source: Flajolet, Fusy, Gandouet, Meunier, "HyperLogLog: the analysis of a
// near-optimal cardinality estimation algorithm", AofA 2007 (registers); Ertl,
// "New cardinality estimation algorithms for HyperLogLog sketches", 2017, section
// 4, arXiv:1702.01284 (estimate).
type HyperLogLog struct {
	dense  *[Registers]uint8
	sparse []uint32 // open addressing by index; index<<8 | value, 0 is free
	used   int      // registers in sparse
}

// A sparse table grows fourfold when three quarters full, and turns dense instead
// of growing past maxSparse entries (2 KiB, as much as the dense array).
const (
	minSparse = 8
	maxSparse = 512
)

// Add counts a value by its hash and gives by how many bytes the sketch grew, which
// is at most five times in its life.
func (h *HyperLogLog) Add(hash uint64) (grown int) {
	index := uint32(hash >> (64 - Precision))
	// The guard bit ends the run of zeros after the 53 bits that are left.
	value := uint8(bits.LeadingZeros64(hash<<Precision|1<<(Precision-1)) + 1)
	if h.dense != nil {
		if value > h.dense[index] {
			h.dense[index] = value
		}
		return 0
	}
	return h.setSparse(index, value)
}

// Bytes is the memory of the registers. It is a function of how many are not zero.
func (h *HyperLogLog) Bytes() int {
	if h.dense != nil {
		return Registers
	}
	return 4 * len(h.sparse)
}

func (h *HyperLogLog) set(index uint32, value uint8) {
	if h.dense == nil {
		h.setSparse(index, value)
	} else if value > h.dense[index] {
		h.dense[index] = value
	}
}

func (h *HyperLogLog) setSparse(index uint32, value uint8) (grown int) {
	if h.sparse == nil {
		h.sparse = make([]uint32, minSparse)
		grown = 4 * minSparse
	}
	mask := uint32(len(h.sparse) - 1)
	for at := index & mask; ; at = (at + 1) & mask {
		switch entry := h.sparse[at]; {
		case entry == 0:
			h.sparse[at] = index<<8 | uint32(value)
			h.used++
			if h.used*4 > len(h.sparse)*3 {
				before := h.Bytes()
				h.grow()
				grown = h.Bytes() - before
			}
			return grown
		case entry>>8 == index:
			if value > uint8(entry) {
				h.sparse[at] = index<<8 | uint32(value)
			}
			return 0
		}
	}
}

func (h *HyperLogLog) grow() {
	old := h.sparse
	h.sparse, h.used = nil, 0
	if len(old) == maxSparse {
		h.dense = new([Registers]uint8)
	} else {
		h.sparse = make([]uint32, len(old)*4)
	}
	for _, entry := range old {
		if entry != 0 {
			h.set(entry>>8, uint8(entry))
		}
	}
}

// Set raises a register to the value of a stored one.
//
// Errors: ErrRegister when the register cannot have come out of a sketch.
func (h *HyperLogLog) Set(r Register) error {
	if r.Index >= Registers || r.Value == 0 || r.Value > MaxRank {
		return fmt.Errorf("set register %d to %d: %w", r.Index, r.Value, ErrRegister)
	}
	h.set(uint32(r.Index), r.Value)
	return nil
}

// Merge makes h the sketch of both sketches' values. other stays as it is.
func (h *HyperLogLog) Merge(other *HyperLogLog) {
	if other.dense != nil {
		for i, v := range other.dense {
			if v != 0 {
				h.set(uint32(i), v)
			}
		}
		return
	}
	for _, entry := range other.sparse {
		if entry != 0 {
			h.set(entry>>8, uint8(entry))
		}
	}
}

// Append appends the registers that are not zero to dst, by rising index. Equal
// sets of values give equal registers.
func (h *HyperLogLog) Append(dst []Register) []Register {
	if h.dense != nil {
		for i, v := range h.dense {
			if v != 0 {
				dst = append(dst, Register{uint16(i), v})
			}
		}
		return dst
	}
	// A bitmap puts the table in order: twenty times faster than to sort a few
	// hundred registers, and windows write that many for each group.
	var present [Registers / 64]uint64
	var values [Registers]uint8
	for _, entry := range h.sparse {
		if entry != 0 {
			index := entry >> 8
			present[index/64] |= 1 << (index % 64)
			values[index] = uint8(entry)
		}
	}
	for i, word := range present {
		for ; word != 0; word &= word - 1 {
			index := i*64 + bits.TrailingZeros64(word)
			dst = append(dst, Register{uint16(index), values[index]})
		}
	}
	return dst
}

// Estimate gives the estimated number of distinct values, 0 for an empty sketch.
//
// With m registers of which z are zero, and the others' values v:
//
//	estimate = m²/(2 ln 2) / (m·sigma(z/m) + sum of 2^-v)
//	sigma(x) = x + sum over k >= 1 of x^(2^k) · 2^(k-1)
//
// It has no thresholds between small and large numbers and no table of
// corrections, so that SQL computes the same (EstimateSQL). Ertl's further term
// for saturated registers is left out: with 64-bit hashes it begins to matter near
// 2^60 values.
func (h *HyperLogLog) Estimate() float64 {
	sum, filled := 0.0, 0
	for _, r := range h.Append(nil) {
		sum += math.Ldexp(1, -int(r.Value))
		filled++
	}
	if filled == 0 {
		return 0
	}
	return alphaMM / (Registers*sigma(float64(Registers-filled)/Registers) + sum)
}

// alphaMM is m²/(2 ln 2).
const alphaMM = Registers * Registers / (2 * math.Ln2)

// sigmaTerms is enough for the largest x that an unempty sketch has,
// (m-1)/m: its next term would be below 1e-50.
const sigmaTerms = 18

func sigma(x float64) float64 {
	sum, power, weight := x, x, 0.5
	for range sigmaTerms {
		power *= power
		weight *= 2
		sum += power * weight
	}
	return sum
}

// EstimateSQL gives a ClickHouse expression that computes Estimate, as Float64,
// from an expression of type Map(UInt16, UInt8) that holds the registers which are
// not zero. Registers of several rows are merged with maxMap before.
func EstimateSQL(registers string) string {
	return fmt.Sprintf("if(empty(%[1]s), 0., %[2]s / "+
		"(%[3]d * arraySum(k -> pow((%[3]d - length(%[1]s)) / %[3]d, bitShiftLeft(toUInt64(1), k)) * bitShiftLeft(toUInt64(1), k) / 2, range(1, %[4]d)) + "+
		"%[3]d - length(%[1]s) + arraySum(v -> 1 / bitShiftLeft(toUInt64(1), v), mapValues(%[1]s))))",
		registers, strconv.FormatFloat(alphaMM, 'f', -1, 64), Registers, sigmaTerms+1)
}
