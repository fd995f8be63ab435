package ledger

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/zeebo/xxh3"

	"github.com/millrace/millrace/pipeline/mutant"
)

// formatVersion is that of every object of a ledger. A reader refuses others.
const formatVersion = 1

// errVersion: the header names another format. No checksum covers it.
var errVersion = errors.New("unknown format version")

// damaged says that an object cannot be read, whatever the reason.
func damaged(err error) bool { return errors.Is(err, ErrCorrupt) || errors.Is(err, errVersion) }

// wayOut is what to do about a ledger that cannot be read.
const wayOut = "put it back from a copy of the ledger, or move the ledger away and run millrace ledger rebuild"

// mend says what to do about an object without which the ledger is no good.
func mend(err error) error {
	switch {
	case errors.Is(err, errVersion):
		return fmt.Errorf("%w: use the release that wrote it; if no newer one ever ran here it is damaged: %s", err, wayOut)
	case errors.Is(err, ErrCorrupt):
		return fmt.Errorf("%w: %s", err, wayOut)
	}
	return err
}

// encode gives an object as it is stored: one line with the kind, the version,
// the length and the xxh3-128 of what follows, then JSON. It can be read with
// any pager, and a cut or flipped bit is found.
func encode(kind string, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode ledger %s: %w", kind, err)
	}
	return seal(kind, body), nil
}

// seal puts the header line before a body.
func seal(kind string, body []byte) []byte { return append([]byte(header(kind, body)), body...) }

func header(kind string, body []byte) string {
	sum := xxh3.Hash128(body).Bytes()
	return fmt.Sprintf("millrace-%s %d %d %s\n", kind, formatVersion, len(body), hex.EncodeToString(sum[:]))
}

// decode reads what encode wrote.
//
// Errors: ErrCorrupt when the header does not fit the rest; errVersion for a version
// that this program does not know, which may be damage too.
func decode(kind string, data []byte, v any) error {
	body, err := unseal(kind, data)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("decode ledger %s: %w: %w", kind, err, ErrCorrupt)
	}
	return nil
}

// unseal gives the body that seal was given.
func unseal(kind string, data []byte) ([]byte, error) {
	line, body, ok := bytes.Cut(data, []byte("\n"))
	if !ok {
		return nil, fmt.Errorf("decode ledger %s: no header line: %w", kind, ErrCorrupt)
	}
	fields := strings.Fields(string(line))
	if len(fields) == 4 && fields[0] == "millrace-"+kind && fields[1] != fmt.Sprint(formatVersion) {
		return nil, fmt.Errorf("decode ledger %s: %w: it says %q, this program knows %d", kind, errVersion, fields[1], formatVersion)
	}
	if string(line)+"\n" != header(kind, body) && !mutant.On(mutant.ChecksumIgnored) {
		return nil, fmt.Errorf("decode ledger %s: length or checksum differs: %w", kind, ErrCorrupt)
	}
	return body, nil
}
