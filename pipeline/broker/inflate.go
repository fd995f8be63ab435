package broker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Bounds of what a batch of messages may inflate to: maxInflated bytes, and past
// inflateFree no more than maxRatio times its size. The client has one bound for all
// batches alone, a large one: an answer of a megabyte holds hundreds of small batches
// that each stay below it. Announcements reach a ratio of 30, a bomb a thousand.
const (
	maxInflated = 64 << 20
	inflateFree = 64 << 10
	maxRatio    = 200
	maxWindow   = 8 << 20 // of zstd, as its specification advises
)

// inflater is the client's decompressor. No length that stands in the input is
// believed before the bound was looked at.
type inflater struct{}

// Decompress gives the plain bytes of a batch.
//
// Errors: kgo.ErrMaxDecompress for one that is too large, upon which the client stops
// its partition until somebody sets an offset behind it; the library's for damage.
func (inflater) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	limit := min(maxInflated, inflateFree+maxRatio*len(src))
	switch codec {
	case kgo.CodecNone:
		return src, nil
	case kgo.CodecGzip:
		z, err := gzip.NewReader(bytes.NewReader(src))
		if err != nil {
			return nil, err
		}
		return atMost(z, limit)
	case kgo.CodecLz4:
		return atMost(lz4.NewReader(bytes.NewReader(src)), limit)
	case kgo.CodecZstd:
		z, err := zstd.NewReader(bytes.NewReader(src), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		return atMost(z, limit)
	case kgo.CodecSnappy:
		return unsnappy(src, limit)
	}
	return nil, fmt.Errorf("unknown compression %d", codec)
}

func atMost(r io.Reader, limit int) ([]byte, error) {
	out, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if errors.Is(err, zstd.ErrWindowSizeExceeded) || err == nil && len(out) > limit {
		return nil, kgo.ErrMaxDecompress
	}
	return out, err
}

// xerial begins what Java's clients write: blocks of snappy, each behind its length.
const xerial = "\x82SNAPPY\x00"

func unsnappy(src []byte, limit int) (out []byte, err error) {
	if !bytes.HasPrefix(src, []byte(xerial)) || len(src) < 16 {
		return unsnappyBlock(nil, src, limit)
	}
	for rest := src[16:]; len(rest) > 0; {
		if len(rest) < 4 {
			return nil, io.ErrUnexpectedEOF
		}
		n := int64(binary.BigEndian.Uint32(rest))
		if rest = rest[4:]; n > int64(len(rest)) {
			return nil, io.ErrUnexpectedEOF
		}
		if out, err = unsnappyBlock(out, rest[:n], limit-len(out)); err != nil {
			return nil, err
		}
		rest = rest[n:]
	}
	return out, nil
}

// unsnappyBlock appends a block, whose length stands at its beginning.
func unsnappyBlock(out, src []byte, limit int) ([]byte, error) {
	n, err := s2.DecodedLen(src)
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, kgo.ErrMaxDecompress
	}
	block, err := s2.Decode(nil, src)
	return append(out, block...), err
}
