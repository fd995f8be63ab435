package blob

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/millrace/millrace/pipeline"
)

// Kind classifies what a store answered.
type Kind int

// Kinds of store errors.
const (
	KindOther       Kind = iota // no class: stop and say what to do
	KindMissing                 // 404
	KindOutOfRange              // 416: the range begins at or behind the blob's end
	KindChanged                 // 412: not the version asked for
	KindThrottled               // 429 and 503: slower
	KindUnavailable             // other 5xx, 408, network, a body that was cut
	KindConflict                // 409: in a state that passes, such as rehydration
	KindRefused                 // 401, 403: the credential or the network rule says no
)

// Error is a request that went wrong. Its text names the blob and never holds a
// query string, a header or a credential: it is built from checked parts, and the
// error of the HTTP client is not wrapped.
//
// Errors: matches pipeline.ErrTransient for what may pass, fs.ErrNotExist for
// KindMissing, and the context's error when the context ended.
type Error struct {
	Op      string // "get blob", "list container"
	Object  string // account/container/path
	Offset  int64  // first byte asked for; -1 where there is none
	Kind    Kind
	Status  int           // HTTP status; 0 without an answer
	Code    string        // the store's own error code, letters and digits only
	Detail  string        // more, free of secrets
	Wait    time.Duration // the store asks to wait that long; 0: it did not say
	context error         // context.Canceled or context.DeadlineExceeded
}

// Error gives operation, object and cause.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %q", e.Op, e.Object)
	if e.Offset >= 0 {
		fmt.Fprintf(&b, " at byte %d", e.Offset)
	}
	b.WriteString(": ")
	if e.Status != 0 {
		fmt.Fprintf(&b, "status %d", e.Status)
		if e.Code != "" {
			b.WriteString(" " + e.Code)
		}
		if e.Detail != "" {
			b.WriteString(": ")
		}
	}
	b.WriteString(e.Detail)
	return b.String()
}

// Is matches the classes named above.
func (e *Error) Is(target error) bool {
	switch target {
	case pipeline.ErrTransient:
		return e.context == nil && e.transient()
	case fs.ErrNotExist:
		return e.Kind == KindMissing
	}
	return false
}

// Unwrap gives the context's error, if that was the cause.
func (e *Error) Unwrap() error { return e.context }

func (e *Error) transient() bool {
	switch e.Kind {
	case KindThrottled, KindUnavailable, KindConflict, KindChanged:
		return true
	case KindOther, KindMissing, KindOutOfRange, KindRefused:
	}
	return false
}

// contextError keeps only the two errors of contexts out of a chain.
func contextError(err error) error {
	for _, c := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, c) {
			return c
		}
	}
	return nil
}

// FormatError says that the blob's bytes are no records array that can be cut
// into records. It belongs to the blob, not to the store: the caller puts the
// range into quarantine and goes on.
type FormatError struct {
	Blob    pipeline.BlobID
	Offset  int64 // where in the blob
	Length  int64 // bytes looked at
	Reason  pipeline.Reason
	Detail  string
	Excerpt []byte // the first bytes there, at most 256, as they stand in the blob
}

// Error gives operation, blob, place and cause.
func (e *FormatError) Error() string {
	return fmt.Sprintf("read blob %q: byte %d: %s", e.Blob, e.Offset, e.Detail)
}

// excerptBytes is how much of a malformed range an error keeps.
const excerptBytes = 256

func formatError(id pipeline.BlobID, offset int64, data []byte, reason pipeline.Reason, detail string) *FormatError {
	return &FormatError{
		Blob: id, Offset: offset, Length: int64(len(data)), Reason: reason, Detail: detail,
		Excerpt: append([]byte(nil), data[:min(len(data), excerptBytes)]...),
	}
}

// ErrShort says that a blob has no such range any more: it was rewritten.
var ErrShort = errors.New("the blob ends before the range does")
