package ledger

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline"
)

// fuzzObject: whatever stands in a file, decode gives an error, or what encode
// writes so that it reads the same again. A file that is not as it was written is
// refused before anything of it is looked at, so each input is also tried under a
// header that fits it.
func fuzzObject[T any](f *testing.F, kind string, good ...T) {
	for _, v := range good {
		data, err := encode(kind, v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)/2])
		body, err := unseal(kind, data)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Add([]byte("millrace-" + kind + " 1 2 x\n{}"))
	f.Add([]byte("millrace-" + kind + " 2 2 0\n{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, file := range [][]byte{data, seal(kind, data)} {
			var v, again T
			if decode(kind, file, &v) != nil {
				continue
			}
			written, err := encode(kind, v)
			if err != nil {
				t.Fatalf("what was decoded cannot be encoded: %v", err)
			}
			if err := decode(kind, written, &again); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(v, again); diff != "" {
				t.Fatalf("read, written and read again: %s", diff)
			}
		}
	})
}

func FuzzManifest(f *testing.F) {
	fuzzObject(f, "manifest", manifest(1, 0), manifest(2, 7), pipeline.Manifest{})
}

func FuzzLedger(f *testing.F) { fuzzObject(f, "base", base(2), Base{}) }

func FuzzOwner(f *testing.F) { fuzzObject(f, ownerName, Owner{Instance: "a", Epoch: 3}) }
