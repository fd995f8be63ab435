package enrich

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gaissmai/bart"

	"github.com/millrace/millrace/schemas"
)

// Limits of a names file.
const (
	maxNamesBytes = 64 << 20
	maxNameRows   = 1_000_000
	maxFieldBytes = 1024
	maxFaults     = 20 // that are told; the others are counted
)

// nameFields are the columns of a names file, in the order of the columns that
// enrichment makes of them.
var nameFields = [nameColumns]string{"name", "vnet", "subnet", "owner", "tags"}

// names is a names file. Entry 0 says nothing.
type names struct {
	prefixes bart.Table[uint32] // entry
	macs     map[string]uint32  // entry
	fields   [nameColumns]field
}

// field is one column of the file.
type field struct {
	of     []uint32 // entry -> text
	values []string // texts, each once; 0 is the empty text
}

// nameRow is one row of the file.
type nameRow struct {
	line   int
	prefix netip.Prefix // or
	mac    string
	fields [nameColumns]string
}

// parseNames reads a names file: CSV with a header row that names the columns cidr
// and/or mac, and some of name, vnet, subnet, owner, tags, in any order. A row has
// either a CIDR (or address) or a MAC.
//
// The longest prefix wins, field by field: what it leaves empty comes from the next
// shorter one that holds it.
//
// Errors: every fault with its line, the first 20 of them in full.
func parseNames(data []byte) (*names, error) {
	if len(data) > maxNamesBytes {
		return nil, fmt.Errorf("%d bytes, at most %d", len(data), maxNamesBytes)
	}
	r := &nameReader{seen: map[string]int{}}
	if err := r.read(data); err != nil {
		return nil, err
	}
	if r.count > len(r.faults) {
		r.faults = append(r.faults, fmt.Errorf("%d more faults", r.count-len(r.faults)))
	}
	if err := errors.Join(r.faults...); err != nil {
		return nil, err
	}
	return newNames(r.rows), nil
}

type nameReader struct {
	columns []int // of the file -> nameFields, or cidrColumn, macColumn
	rows    []nameRow
	seen    map[string]int // prefix or MAC -> line
	faults  []error
	count   int
}

const (
	cidrColumn = -1
	macColumn  = -2
)

func (r *nameReader) fault(line int, format string, args ...any) {
	if r.count++; r.count <= maxFaults {
		r.faults = append(r.faults, fmt.Errorf("line %d: "+format, append([]any{line}, args...)...))
	}
}

func (r *nameReader) read(data []byte) error {
	c := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(data, []byte("\uFEFF"))))
	c.FieldsPerRecord, c.TrimLeadingSpace, c.ReuseRecord = -1, true, true
	head, err := c.Read()
	if errors.Is(err, io.EOF) {
		return errors.New("line 1: no header row: want cidr or mac, and some of " + strings.Join(nameFields[:], ", "))
	}
	if err != nil {
		return lineOf(err)
	}
	if err := r.header(head); err != nil {
		return err
	}
	for {
		record, err := c.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			// Behind a quote that does not end, lines mean nothing any more.
			r.count++
			r.faults = append(r.faults, lineOf(err))
			return nil
		}
		line, _ := c.FieldPos(0)
		if len(r.rows) == maxNameRows {
			return fmt.Errorf("line %d: more than %d rows", line, maxNameRows)
		}
		r.row(line, record)
	}
}

// lineOf says the line as the other faults do.
func lineOf(err error) error {
	var parse *csv.ParseError
	if errors.As(err, &parse) {
		return fmt.Errorf("line %d: %w", parse.StartLine, parse.Err)
	}
	return err
}

func (r *nameReader) header(head []string) error {
	keyed := false
	var faults []error
	for _, text := range head {
		name := strings.ToLower(strings.TrimSpace(text))
		at := slices.Index(nameFields[:], name)
		switch {
		case name == "cidr":
			at, keyed = cidrColumn, true
		case name == "mac":
			at, keyed = macColumn, true
		case at < 0:
			faults = append(faults, fmt.Errorf("line 1: unknown column %q: want cidr, mac, %s", text, strings.Join(nameFields[:], ", ")))
			continue
		}
		if slices.Contains(r.columns, at) {
			faults = append(faults, fmt.Errorf("line 1: column %q is there twice", text))
		}
		r.columns = append(r.columns, at)
	}
	if !keyed {
		faults = append(faults, errors.New("line 1: no column cidr or mac: the first line names the columns"))
	}
	return errors.Join(faults...)
}

func (r *nameReader) row(line int, record []string) {
	if len(record) != len(r.columns) {
		r.fault(line, "%d fields, the header has %d", len(record), len(r.columns))
		return
	}
	row := nameRow{line: line}
	var cidr, mac string
	for i, at := range r.columns {
		text := strings.TrimSpace(record[i])
		switch {
		case !utf8.ValidString(text):
			r.fault(line, "field %d is no UTF-8", i+1)
			return
		case len(text) > maxFieldBytes:
			r.fault(line, "field %d has %d bytes, at most %d", i+1, len(text), maxFieldBytes)
			return
		}
		switch at {
		case cidrColumn:
			cidr = text
		case macColumn:
			mac = text
		default:
			row.fields[at] = strings.Clone(text) // not the whole line
		}
	}
	if (cidr == "") == (mac == "") {
		r.fault(line, "want either a cidr or a mac")
		return
	}
	var key string
	var err error
	if cidr != "" {
		row.prefix, err = schemas.ParsePrefix(cidr)
		key = row.prefix.String()
	} else {
		row.mac, err = schemas.ParseMAC(mac)
		key = row.mac
	}
	if err != nil {
		r.fault(line, "%v", err)
		return
	}
	if first, twice := r.seen[key]; twice {
		r.fault(line, "%s stands in line %d already", key, first)
		return
	}
	r.seen[key] = line
	r.rows = append(r.rows, row)
}

// newNames makes the table. Shorter prefixes come first, so that a longer one finds
// what it inherits.
func newNames(rows []nameRow) *names {
	n := &names{macs: map[string]uint32{}}
	var codes [nameColumns]map[string]uint32
	for i := range codes {
		codes[i] = map[string]uint32{"": 0}
		n.fields[i] = field{of: []uint32{0}, values: []string{""}}
	}
	slices.SortStableFunc(rows, func(a, b nameRow) int { return cmp.Compare(a.prefix.Bits(), b.prefix.Bits()) })
	for _, row := range rows {
		entry := uint32(len(n.fields[0].of))
		var parent uint32
		if row.mac == "" {
			parent, _ = n.prefixes.LookupPrefix(row.prefix)
			n.prefixes.Insert(row.prefix, entry)
		} else {
			n.macs[row.mac] = entry
		}
		for i, text := range row.fields {
			f := &n.fields[i]
			code, known := codes[i][text]
			switch {
			case text == "":
				code = f.of[parent]
			case !known:
				code = uint32(len(f.values))
				codes[i][text] = code
				f.values = append(f.values, text)
			}
			f.of = append(f.of, code)
		}
	}
	return n
}
