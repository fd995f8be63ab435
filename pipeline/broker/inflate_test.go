package broker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
)

// codecs compress as producers do.
var codecs = map[string]struct {
	codec    kgo.CompressionCodecType
	compress func(w io.Writer) io.WriteCloser
}{
	"gzip": {kgo.CodecGzip, func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }},
	"lz4":  {kgo.CodecLz4, func(w io.Writer) io.WriteCloser { return lz4.NewWriter(w) }},
	"zstd": {kgo.CodecZstd, func(w io.Writer) io.WriteCloser {
		z, err := zstd.NewWriter(w, zstd.WithWindowSize(1<<20))
		if err != nil {
			panic(err)
		}
		return z
	}},
	"snappy": {kgo.CodecSnappy, func(w io.Writer) io.WriteCloser { return &block{to: w} }},
	"xerial": {kgo.CodecSnappy, func(w io.Writer) io.WriteCloser { return &block{to: w, framed: true} }},
}

// block is snappy without a stream, or with Java's.
type block struct {
	bytes.Buffer
	to     io.Writer
	framed bool
}

func (b *block) Close() (err error) {
	if !b.framed {
		_, err = b.to.Write(s2.EncodeSnappy(nil, b.Bytes()))
		return err
	}
	out := []byte(xerial + "\x00\x00\x00\x01\x00\x00\x00\x01")
	for part := b.Next(32 << 10); len(part) > 0; part = b.Next(32 << 10) {
		c := s2.EncodeSnappy(nil, part)
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(c))), c...)
	}
	_, err = b.to.Write(out)
	return err
}

func compressed(t testing.TB, compress func(io.Writer) io.WriteCloser, data io.Reader) []byte {
	t.Helper()
	var out bytes.Buffer
	w := compress(&out)
	if _, err := io.Copy(w, data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// announcements are what is sent in truth: about one text again and again.
func announcements(n int) string {
	return strings.Repeat(`{"eventType":"Microsoft.Storage.BlobCreated","data":{"url":"https://flowlogs.blob.core.windows.net/c/p","contentLength":7}}`+"\n", n)
}

func TestInflates(t *testing.T) {
	for name, c := range codecs {
		for _, text := range []string{"", "x", announcements(1), announcements(400)} {
			got, err := inflater{}.Decompress(compressed(t, c.compress, strings.NewReader(text)), c.codec)
			if err != nil || string(got) != text {
				t.Errorf("%s of %d bytes: %d bytes, %v", name, len(text), len(got), err)
			}
		}
	}
	if got, err := (inflater{}).Decompress([]byte("as it is"), kgo.CodecNone); err != nil || string(got) != "as it is" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := (inflater{}).Decompress([]byte("x"), 9); err == nil {
		t.Error("an unknown compression")
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// Bombs are refused with the error that the client knows, whatever length they claim,
// and take little memory. Hundreds of small ones in one answer do, too.
func TestInflateBombs(t *testing.T) {
	for name, c := range codecs {
		if c.codec == kgo.CodecSnappy {
			continue // 21 times at most
		}
		bomb := compressed(t, c.compress, io.LimitReader(zeros{}, 256<<20))
		taken := allocated(func() {
			if out, err := (inflater{}).Decompress(bomb, c.codec); !errors.Is(err, kgo.ErrMaxDecompress) {
				t.Errorf("%s: %d bytes of %d, %v", name, len(out), len(bomb), err)
			}
		})
		// io.ReadAll grows by a quarter: what it throws away is counted here, too.
		if most := uint64(8*min(maxInflated, inflateFree+maxRatio*len(bomb)) + 32<<20); taken > most {
			t.Errorf("%s of %d bytes took %d MiB, want at most %d", name, len(bomb), taken>>20, most>>20)
		}
	}
	lies := map[string][]byte{
		"snappy of 4 GiB":       append(binary.AppendUvarint(nil, 1<<32-1), 0),
		"snappy of 1 GiB":       append(binary.AppendUvarint(nil, 1<<30), make([]byte, 100)...),
		"xerial block of 2 GiB": []byte(xerial + "\x00\x00\x00\x01\x00\x00\x00\x01\x7f\xff\xff\xffx"),
		"xerial of 1 GiB":       append([]byte(xerial+"\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x06"), append(binary.AppendUvarint(nil, 1<<30), 0)...),
		"zstd of 2 GiB":         {0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0x80, 0, 0, 0, 0, 1, 0, 0},
		"zstd window of 2 GiB":  {0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 1, 0, 0},
		"lz4 block of 2 GiB":    {0x04, 0x22, 0x4d, 0x18, 0x60, 0x70, 0x73, 0xff, 0xff, 0xff, 0x7f},
		"gzip without an end":   compressed(t, codecs["gzip"].compress, strings.NewReader(announcements(9)))[:40],
	}
	for name, src := range lies {
		for _, codec := range []kgo.CompressionCodecType{kgo.CodecGzip, kgo.CodecSnappy, kgo.CodecLz4, kgo.CodecZstd} {
			taken := allocated(func() {
				if out, err := (inflater{}).Decompress(src, codec); err == nil && len(out) > inflateFree {
					t.Errorf("%s as codec %d: %d bytes", name, codec, len(out))
				}
			})
			if taken > 24<<20 {
				t.Errorf("%s as codec %d took %d MiB", name, codec, taken>>20)
			}
		}
	}
}

func allocated(run func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	run()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// FuzzInflate: no input panics, and none gives more than its bound.
func FuzzInflate(f *testing.F) {
	for _, c := range codecs {
		f.Add(compressed(f, c.compress, strings.NewReader(announcements(3))), int8(c.codec))
		f.Add(compressed(f, c.compress, io.LimitReader(zeros{}, 1<<20)), int8(c.codec))
	}
	f.Fuzz(func(t *testing.T, src []byte, codec int8) {
		out, err := inflater{}.Decompress(src, kgo.CompressionCodecType(codec))
		if err == nil && codec != 0 && len(out) > inflateFree+maxRatio*len(src) {
			t.Errorf("%d bytes out of %d", len(out), len(src))
		}
	})
}
