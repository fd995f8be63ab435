package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Frame types.
const (
	FrameAMQP = 0
	FrameSASL = 1
)

const frameHeader = 8

// Frame is one frame without its header. Body owns its bytes.
type Frame struct {
	Type    byte
	Channel uint16
	Body    []byte // performative and payload; empty in a frame that only says "alive"
}

// ReadFrame reads one frame of at most limit bytes. The size is checked before
// memory is taken for it.
//
// Errors: io.EOF at the end of input, an FrameError for what breaks the format.
func ReadFrame(r io.Reader, limit uint32) (Frame, error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return Frame{}, err
	}
	size, start := binary.BigEndian.Uint32(h[:]), 4*uint32(h[4])
	if size < frameHeader || start < frameHeader || start > size {
		return Frame{}, &FrameError{fmt.Errorf("frame of %d bytes whose body starts at %d", size, start)}
	}
	if size > limit {
		return Frame{}, &FrameError{fmt.Errorf("frame of %d bytes, limit %d", size, limit)}
	}
	body := make([]byte, size-frameHeader)
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	return Frame{Type: h[5], Channel: binary.BigEndian.Uint16(h[6:]), Body: body[start-frameHeader:]}, nil
}

// FrameError wraps what is wrong with a frame or its performative.
type FrameError struct{ Cause error }

// Error gives the cause.
func (e *FrameError) Error() string { return "read frame: " + e.Cause.Error() }

// Unwrap gives the cause.
func (e *FrameError) Unwrap() error { return e.Cause }

// AppendFrame writes a frame with a performative and the payload behind it. A nil
// performative makes an empty frame.
func AppendFrame(dst []byte, kind byte, channel uint16, p Performative, payload []byte) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0, 2, kind, 0, 0)
	binary.BigEndian.PutUint16(dst[start+6:], channel)
	if p != nil {
		dst = Append(dst, Described{p.Code(), p.fields()})
		dst = append(dst, payload...)
	}
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start))
	return dst
}
