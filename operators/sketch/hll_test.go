package sketch

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Sixty sketches of each size: the standard error is 1.04/sqrt(2048) = 2.3 %, so
// the mean over 60 may be off by 3 sigma/sqrt(60), and the spread by little. Small
// numbers are nearly exact, which the bound by the same formula includes.
func TestEstimateIsWithinThreeSigma(t *testing.T) {
	const sketches = 60
	sigma := 1.04 / math.Sqrt(Registers)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 10, 100, 383, 384, 385, 1000, 2048, 3000, 5120, 6000, 10_000, 100_000} {
		var mean, square float64
		for range sketches {
			var h HyperLogLog
			for range n {
				h.Add(HashUint64(rng.Uint64()))
			}
			off := h.Estimate()/float64(n) - 1
			mean += off / sketches
			square += off * off / sketches
		}
		if limit := 3 * sigma / math.Sqrt(sketches); math.Abs(mean) > limit {
			t.Errorf("%d values: mean error %.4f, want at most %.4f", n, mean, limit)
		}
		// The spread of 60 samples: 3 sigma of a chi distribution is 27 % over.
		if spread := math.Sqrt(square); spread > sigma*1.3 {
			t.Errorf("%d values: standard error %.4f, want at most %.4f", n, spread, sigma*1.3)
		}
	}
}

func TestMergeIsTheSketchOfBoth(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, sizes := range [][2]int{{0, 0}, {0, 5}, {5, 0}, {20, 30}, {300, 300}, {5, 5000}, {5000, 5}, {9000, 9000}} {
		var a, b, both HyperLogLog
		for i, n := range sizes {
			for range n {
				hash := HashUint64(rng.Uint64N(10_000))
				both.Add(hash)
				if i == 0 {
					a.Add(hash)
				} else {
					b.Add(hash)
				}
			}
		}
		before := b.Append(nil)
		a.Merge(&b)
		if diff := cmp.Diff(both.Append(nil), a.Append(nil)); diff != "" {
			t.Errorf("merge of %v (-want +got):\n%s", sizes, diff)
		}
		if diff := cmp.Diff(before, b.Append(nil)); diff != "" {
			t.Errorf("merge of %v changed its argument:\n%s", sizes, diff)
		}
		if a.Estimate() != both.Estimate() {
			t.Errorf("merge of %v: estimate %v, want %v", sizes, a.Estimate(), both.Estimate())
		}
	}
}

// Registers are a function of the set of values: neither order nor repetition nor
// the way through the sparse table shows. The slow reference is a plain array.
func TestRegistersAreAFunctionOfTheSet(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, n := range []int{1, 6, 7, 300, 384, 385, 386, 2000} {
		hashes := make([]uint64, n)
		var plain [Registers]uint8
		for i := range hashes {
			hashes[i] = rng.Uint64() >> rng.IntN(30)
			value, rest := uint8(1), hashes[i]<<Precision
			for ; value < MaxRank && rest>>63 == 0; value++ {
				rest <<= 1
			}
			index := hashes[i] >> (64 - Precision)
			plain[index] = max(plain[index], value)
		}
		var want []Register
		for i, v := range plain {
			if v != 0 {
				want = append(want, Register{uint16(i), v})
			}
		}
		for range 3 {
			rng.Shuffle(n, func(i, j int) { hashes[i], hashes[j] = hashes[j], hashes[i] })
			var h, restored HyperLogLog
			for _, hash := range hashes {
				h.Add(hash)
				h.Add(hash)
			}
			got := h.Append(nil)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%d values (-want +got):\n%s", n, diff)
			}
			for _, r := range got {
				if err := restored.Set(r); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(want, restored.Append(nil)); diff != "" {
				t.Fatalf("%d values restored (-want +got):\n%s", n, diff)
			}
		}
	}
}

func TestSetRefusesImpossibleRegisters(t *testing.T) {
	var h HyperLogLog
	for _, r := range []Register{{Registers, 1}, {0, 0}, {0, MaxRank + 1}, {math.MaxUint16, 3}} {
		if err := h.Set(r); !errors.Is(err, ErrRegister) {
			t.Errorf("set %v: %v, want ErrRegister", r, err)
		}
	}
	if h.Estimate() != 0 {
		t.Errorf("an empty sketch estimates %v", h.Estimate())
	}
}

// Stored registers outlive a release: these values may never change.
func TestHashesAreFixed(t *testing.T) {
	got := fmt.Sprintf("%x %x %x", Hash([]byte("millrace")), HashString("millrace"), HashUint64(1))
	if want := "c757bd6da65fe88f c757bd6da65fe88f 30cd1e06f99150c8"; got != want {
		t.Errorf("hashes are %s, want %s", got, want)
	}
}

func BenchmarkAdd(b *testing.B) {
	for _, distinct := range []uint64{8, 100, 100_000} {
		b.Run(fmt.Sprint(distinct), func(b *testing.B) {
			hashes := make([]uint64, 4096)
			rng := rand.New(rand.NewPCG(7, 8))
			for i := range hashes {
				hashes[i] = HashUint64(rng.Uint64N(distinct))
			}
			var h HyperLogLog
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				h.Add(hashes[i&4095])
			}
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, distinct := range []int{4, 300, 100_000} {
		b.Run(fmt.Sprint(distinct), func(b *testing.B) {
			var h HyperLogLog
			for i := range distinct {
				h.Add(HashUint64(uint64(i)))
			}
			registers := make([]Register, 0, Registers)
			b.ReportAllocs()
			for b.Loop() {
				registers = h.Append(registers[:0])
			}
		})
	}
}
