package decode

import (
	"bufio"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
)

// Bounds of what a gzip file may grow to: past inflateFree bytes it must not be
// more than maxRatio times its size. Logs reach 3 to 30; a bomb reaches 1,000.
const (
	maxRatio    = 200
	inflateFree = 16 << 20
)

// inflate gives the plain bytes of a file, gzip or not, told by its first bytes.
func inflate(in io.Reader) (io.Reader, error) {
	counted := &counter{in: in}
	buffered := bufio.NewReaderSize(counted, 64<<10)
	magic, err := buffered.Peek(2)
	if err != nil && err != io.EOF { //nolint:errorlint // bufio gives io.EOF bare.
		return nil, fmt.Errorf("read: %w", err)
	}
	if string(magic) != "\x1f\x8b" {
		return buffered, nil
	}
	z, err := gzip.NewReader(buffered)
	if err != nil {
		return nil, fmt.Errorf("inflate: %w", err)
	}
	return &inflater{z: z, in: counted}, nil
}

type counter struct {
	in io.Reader
	n  int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	c.n += int64(n)
	return n, err
}

// inflater stops a bomb while it streams.
type inflater struct {
	z   *gzip.Reader
	in  *counter
	out int64
}

func (i *inflater) Read(p []byte) (int, error) {
	n, err := i.z.Read(p)
	i.out += int64(n)
	if i.out > inflateFree && i.out > maxRatio*i.in.n {
		return 0, fmt.Errorf("inflate: %d bytes out of %d: more than %d times", i.out, i.in.n, maxRatio)
	}
	if err != nil && err != io.EOF { //nolint:errorlint // gzip gives io.EOF bare.
		err = fmt.Errorf("inflate: %w", err)
	}
	return n, err
}
