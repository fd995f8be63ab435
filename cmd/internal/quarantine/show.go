package quarantine

import (
	"context"
	"errors"

	"github.com/millrace/millrace/cmd/internal/reread"
)

// Inspection is everything that is known of an entry.
type Inspection struct {
	Entry
	Now    Verdict `json:"now"`              // what a replay would do
	Record []byte  `json:"-"`                // the record or range as it stands in the blob; nil when it cannot be read
	Text   string  `json:"record,omitempty"` // the same, for JSON
	Cause  string  `json:"cause,omitempty"`  // why it cannot be read
}

// Inspect reads the bytes of entries again and judges them.
//
// Errors: the target cannot be asked; ctx ended.
func Inspect(ctx context.Context, deps Deps, entries []Entry) ([]Inspection, error) {
	var out []Inspection
	for _, e := range entries {
		verdicts, err := Judge(ctx, deps, []Entry{e})
		if err != nil {
			return nil, err
		}
		i := Inspection{Entry: e, Now: verdicts[0]}
		xs, err := extents([]Entry{e})
		if err != nil {
			return nil, err
		}
		switch data, err := xs[0].read(ctx, deps.Blobs); {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, reread.ErrExpired):
			i.Cause = err.Error()
		case err != nil:
			i.Cause = "it cannot be read now: " + err.Error()
		default:
			i.Record, i.Text = data, string(data)
		}
		out = append(out, i)
	}
	return out, nil
}
