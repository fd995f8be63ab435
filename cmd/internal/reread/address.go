package reread

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/millrace/millrace/pipeline"
)

// Address is a place in a blob, as people copy it from one command to the next:
// BLOB@GENERATION:OFFSET for a record or range, with :ORDINAL for a tuple.
type Address struct {
	Blob       pipeline.BlobID
	Generation uint32
	Offset     int64 // of the record or range
	Ordinal    int64 // of the tuple; -1 for a record or range, and for everything at Offset
}

// String gives the address in one word of any shell: whatever is not plain in the
// blob's name is written as in a URL.
func (a Address) String() string {
	var b strings.Builder
	for _, c := range []byte(a.Blob.String()) {
		if isPlain(c) {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	fmt.Fprintf(&b, "@%d:%d", a.Generation, a.Offset)
	if a.Ordinal >= 0 {
		fmt.Fprintf(&b, ":%d", a.Ordinal)
	}
	return b.String()
}

func isPlain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("/=._-+:,@", c) >= 0
}

var addressForm = regexp.MustCompile(`^(.+)@([0-9]+):([0-9]+)(?::([0-9]+))?$`)

// ParseAddress reads what String wrote.
//
// Errors: any other text, with what is wanted.
func ParseAddress(s string) (Address, error) {
	wrong := func() (Address, error) {
		return Address{}, fmt.Errorf("address %q: want ACCOUNT/CONTAINER/PATH@GENERATION:OFFSET[:ORDINAL]", s)
	}
	m := addressForm.FindStringSubmatch(s)
	if m == nil {
		return wrong()
	}
	name, ok := unescape(m[1])
	if !ok {
		return wrong()
	}
	id, err := pipeline.ParseBlobID(name)
	if err != nil {
		return wrong()
	}
	generation, err := strconv.ParseUint(m[2], 10, 32)
	if err != nil {
		return wrong()
	}
	offset, err := strconv.ParseInt(m[3], 10, 64)
	if err != nil {
		return wrong()
	}
	a := Address{Blob: id, Generation: uint32(generation), Offset: offset, Ordinal: -1}
	if m[4] != "" {
		if a.Ordinal, err = strconv.ParseInt(m[4], 10, 64); err != nil || a.Ordinal > math.MaxUint32 {
			return wrong()
		}
	}
	return a, nil
}

// unescape undoes the %XX of String. It takes nothing else for an escape.
func unescape(s string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+3 > len(s) {
			return "", false
		}
		c, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", false
		}
		b.WriteByte(byte(c))
		i += 2
	}
	return b.String(), true
}
