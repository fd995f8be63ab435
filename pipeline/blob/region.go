package blob

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
)

const (
	header = `{"records":[`
	// headerLimit is how far the opening bracket of the records array may be from the
	// start of the blob.
	headerLimit = 4 << 10
	// footerBytes is the length of the footer that the service writes: ]}
	footerBytes = 2
)

var byteOrderMark = []byte("\xef\xbb\xbf")

// findHeader gives the offset behind the opening bracket of the records array.
// Byte order mark, white space and other members before "records" are passed.
// found is false while data ends too early; reason says why it can never be found.
func findHeader(data []byte) (end int, found bool, reason string) {
	if bytes.HasPrefix(data, []byte(header)) {
		return len(header), true, ""
	}
	if len(data) < len(byteOrderMark) && bytes.HasPrefix(byteOrderMark, data) {
		return 0, false, ""
	}
	mark := len(data)
	data = bytes.TrimPrefix(data, byteOrderMark)
	mark -= len(data)
	if len(data) > headerLimit {
		data = data[:headerLimit]
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	end, err := recordsArray(dec)
	switch {
	case err == nil:
		return mark + end, true, ""
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		if len(data) == headerLimit {
			return 0, false, `no member "records" in the first 4 KiB`
		}
		return 0, false, ""
	}
	return 0, false, "no flow log: " + strings.TrimPrefix(err.Error(), "json: ")
}

var (
	errNoObject  = errors.New("the blob is no JSON object")
	errNoRecords = errors.New(`the object has no member "records"`)
	errNoArray   = errors.New(`the member "records" is no array`)
)

func recordsArray(dec *json.Decoder) (int, error) {
	t, err := dec.Token()
	if err != nil {
		return 0, err
	}
	if t != json.Delim('{') {
		return 0, errNoObject
	}
	for {
		key, err := dec.Token()
		if err != nil {
			return 0, err
		}
		if key == json.Delim('}') {
			return 0, errNoRecords
		}
		if key == "records" {
			if t, err = dec.Token(); err != nil {
				return 0, err
			}
			if t != json.Delim('[') {
				return 0, errNoArray
			}
			return int(dec.InputOffset()), nil
		}
		var skipped json.RawMessage
		if err := dec.Decode(&skipped); err != nil {
			return 0, err
		}
	}
}

const space = " \t\r\n"

// closedBy gives the end of the last record when the region, the rest of a blob,
// ends in a record and the footer.
//
// A flow record ends in two braces, and before a record's end no published format
// has two braces followed by a bracket and a brace: a record that was cut anywhere
// does not look closed. Other endings are left to Split. Saves a scan of every
// byte; delete it when Split is no longer visible in a profile of the reader.
func closedBy(region []byte) (int, bool) {
	rest := bytes.TrimRight(region, space)
	for _, c := range "}]" {
		if len(rest) == 0 || rest[len(rest)-1] != byte(c) {
			return 0, false
		}
		rest = bytes.TrimRight(rest[:len(rest)-1], space)
	}
	return len(rest), bytes.HasSuffix(rest, []byte("}}"))
}

// footer says whether rest, which begins behind the last record, is the end of a
// flow log: the closing bracket, perhaps behind a comma too many, and then a brace
// or other members. Bytes that are not there yet are no fault.
func footer(rest []byte) bool {
	rest = bytes.TrimLeft(rest, space+",")
	if len(rest) == 0 {
		return true
	}
	if rest[0] != ']' {
		return false
	}
	rest = bytes.TrimLeft(rest[1:], space)
	if len(rest) == 0 || rest[0] == ',' {
		return true
	}
	return rest[0] == '}' && len(bytes.TrimLeft(rest[1:], space)) == 0
}

// begin looks at the first byte that is no white space: 0 when there is none.
func begin(region []byte) byte {
	region = bytes.TrimLeft(region, space)
	if len(region) == 0 {
		return 0
	}
	return region[0]
}

// nextTail gives the last bytes before the end of data, which follows tail.
func nextTail(tail, data []byte) []byte {
	if len(data) >= TailBytes {
		return append([]byte(nil), data[len(data)-TailBytes:]...)
	}
	all := append(append([]byte(nil), tail...), data...)
	if len(all) > TailBytes {
		all = all[len(all)-TailBytes:]
	}
	return all
}
