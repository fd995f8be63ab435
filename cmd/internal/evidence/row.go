package evidence

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow/go/v17/arrow"

	"github.com/millrace/millrace/cmd/internal/ask"
	"github.com/millrace/millrace/cmd/internal/reread"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/schemas/rowtext"
)

// Row is a row of the table flows: its values as text, in the order of the columns
// of schemas.Flows, and where it comes from.
type Row struct {
	Values []string
	At     reread.Address
	Batch  pipeline.BatchID
}

// compared are the columns that the bytes decide: all but the commit.
var compared = schemas.Flows.Columns[:schemas.Flows.Index("batch_id")]

// rowColumns are those of scanRow.
var rowColumns = schemas.Flows.ColumnNames()

func scanRow(from ask.Row) (Row, error) {
	dest := make([]any, len(schemas.Flows.Columns))
	for i, c := range schemas.Flows.Columns {
		dest[i] = destination(c.Arrow)
	}
	if err := from.Scan(dest...); err != nil {
		return Row{}, err
	}
	var r Row
	for _, d := range dest {
		r.Values = append(r.Values, textOf(d))
	}
	return r, r.place()
}

// destination is what a value of the type is scanned into.
func destination(t arrow.DataType) any {
	switch {
	case arrow.TypeEqual(t, schemas.TimeMS):
		return new(time.Time)
	case arrow.TypeEqual(t, schemas.Address):
		return new(netip.Addr)
	case t.ID() == arrow.UINT8:
		return new(uint8)
	case t.ID() == arrow.UINT16:
		return new(uint16)
	case t.ID() == arrow.UINT32:
		return new(uint32)
	case t.ID() == arrow.UINT64:
		return new(uint64)
	}
	return new(string)
}

// textOf writes a scanned value as package rowtext does.
func textOf(d any) string {
	switch d := d.(type) {
	case *time.Time:
		return d.UTC().Format("2006-01-02T15:04:05.000Z")
	case *netip.Addr:
		return d.Unmap().String()
	case *uint8:
		return strconv.FormatUint(uint64(*d), 10)
	case *uint16:
		return strconv.FormatUint(uint64(*d), 10)
	case *uint32:
		return strconv.FormatUint(uint64(*d), 10)
	case *uint64:
		return strconv.FormatUint(*d, 10)
	}
	return *d.(*string)
}

// place fills in where the row comes from.
//
// Errors: the blob's name is none.
func (r *Row) place() error {
	id, err := pipeline.ParseBlobID(r.value("blob"))
	if err != nil {
		return fmt.Errorf("row of table flows: %w", err)
	}
	number := func(column string) uint64 {
		n, err := strconv.ParseUint(r.value(column), 10, 64)
		if err != nil {
			panic("BUG: column " + column + " is no number")
		}
		return n
	}
	r.At = reread.Address{
		Blob: id, Generation: uint32(number("generation")), Offset: int64(number("record_offset")), Ordinal: int64(number("ordinal")),
	}
	r.Batch = pipeline.BatchID(number("batch_id"))
	return nil
}

func (r *Row) value(column string) string { return r.Values[schemas.Flows.Index(column)] }

// Difference is one value that is not what it should be.
type Difference struct {
	Column string `json:"column"`
	Row    string `json:"row"`   // as it landed
	Bytes  string `json:"bytes"` // as the bytes say; for windows as the flow rows say
}

// differences compares the row with the one row of rec, which was decoded anew.
func (r *Row) differences(rec arrow.Record) ([]Difference, error) {
	var decoded map[string]any
	d := json.NewDecoder(strings.NewReader(string(rowtext.New(rec, rowtext.JSON).Append(nil, 0))))
	d.UseNumber()
	if err := d.Decode(&decoded); err != nil {
		return nil, fmt.Errorf("text of a decoded row: %w", err)
	}
	var found []Difference
	for i, c := range compared {
		if now := fmt.Sprint(decoded[c.Name]); now != r.Values[i] {
			found = append(found, Difference{c.Name, r.Values[i], now})
		}
	}
	return found, nil
}
