package blob_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/blob/blobtest"
)

// inMemory is a store without a network.
type inMemory []byte

func (m inMemory) Get(_ context.Context, _ pipeline.BlobID, offset, _ int64, _ string) (blob.Response, error) {
	return blob.Response{
		Body: io.NopCloser(bytes.NewReader(m[offset:])), ETag: "1", Offset: offset,
		Length: int64(len(m)) - offset, Total: int64(len(m)),
	}, nil
}

type noBudget struct{}

func (noBudget) Acquire(context.Context, int64) error { return nil }
func (noBudget) Release(int64)                        {}

// BenchmarkReadNew reads a large blob in chunks, where Split looks at every byte,
// and a minute's append, where the footer tells enough.
func BenchmarkReadNew(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	for name, c := range map[string]struct{ records, size int }{"append": {1, 3000}, "64MiB": {64, 1 << 20}} {
		data := []byte(blobtest.Header)
		for i := range c.records {
			if i > 0 {
				data = append(data, ',')
			}
			data = append(data, record(r, i, c.size)...)
		}
		data = append(data, blobtest.Footer...)
		b.Run(name, func(b *testing.B) {
			reader := newReader(b, blob.DefaultConfig(split), inMemory(data))
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				out, err := reader.ReadNew(b.Context(), id, blob.Position{}, -1, noBudget{}, func(blob.Chunk) error { return nil })
				if err != nil || out != blob.Read {
					b.Fatal(out, err)
				}
			}
		})
	}
}
