package enrich

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/oschwald/maxminddb-golang/v2"
)

// database is a MaxMind DB file with each of its records read beforehand: a lookup
// decodes nothing, and a file with a broken record is found when it is opened.
//
// Source: MaxMind DB File Format Specification 2.0.
type database struct {
	reader  *maxminddb.Reader
	offsets []uint32 // of records in the file, rising
	records []record // by place in offsets
	values  []string // texts, each once; 0 is the empty text
}

// record is what a file says of a network.
type record struct {
	number uint32 // of the autonomous system
	text   uint32 // country, or the system's organization
}

// maxDatabaseBytes keeps offsets within 32 bits.
const maxDatabaseBytes = 1 << 30

// openDatabase reads a file. say gives number and text of a record.
//
// Errors: no MaxMind DB file, a damaged one, one without any such record.
func openDatabase(data []byte, say func(maxminddb.Result) (uint32, string), want string) (*database, error) {
	if len(data) > maxDatabaseBytes {
		return nil, fmt.Errorf("%d bytes, at most %d", len(data), maxDatabaseBytes)
	}
	reader, err := maxminddb.OpenBytes(data)
	if err != nil {
		return nil, fmt.Errorf("no MaxMind DB file: %w", err)
	}
	d := &database{reader: reader, values: []string{""}}
	for network := range reader.Networks() {
		if err := network.Err(); err != nil {
			return nil, fmt.Errorf("damaged: %w", err)
		}
		offset := uint32(network.Offset())
		if n := len(d.offsets); n == 0 || d.offsets[n-1] != offset {
			d.offsets = append(d.offsets, offset)
		}
	}
	slices.Sort(d.offsets)
	d.offsets = slices.Compact(d.offsets)
	codes, useful := map[string]uint32{"": 0}, false
	for _, offset := range d.offsets {
		result := reader.LookupOffset(uintptr(offset))
		var whole any
		if err := result.Decode(&whole); err != nil {
			return nil, fmt.Errorf("damaged: %w", err)
		}
		number, text := say(result)
		code, known := codes[text]
		if !known {
			code = uint32(len(d.values))
			codes[text] = code
			d.values = append(d.values, text)
		}
		d.records = append(d.records, record{number: number, text: code})
		useful = useful || number != 0 || code != 0
	}
	if !useful {
		return nil, fmt.Errorf("its records (type %q) hold no %s", reader.Metadata.DatabaseType, want)
	}
	return d, nil
}

// find gives what the file says of an address; nothing where it says nothing.
func (d *database) find(a netip.Addr) record {
	result := d.reader.Lookup(a)
	if result.Err() != nil || !result.Found() {
		return record{} // such as an IPv6 address in a file for IPv4
	}
	at, ok := slices.BinarySearch(d.offsets, uint32(result.Offset()))
	if !ok {
		return record{}
	}
	return d.records[at]
}

func openCountries(data []byte) (*database, error) {
	return openDatabase(data, countryOf, "country code (country.iso_code or country_code)")
}

func openSystems(data []byte) (*database, error) {
	return openDatabase(data, systemOf, "autonomous system (autonomous_system_number and autonomous_system_organization)")
}

// countryOf knows the shapes of MaxMind and of the files that others make of its
// format. Anything but two letters is no country code.
func countryOf(r maxminddb.Result) (uint32, string) {
	for _, path := range [][]any{{"country", "iso_code"}, {"country_code"}, {"country"}} {
		var code string
		if err := r.DecodePath(&code, path...); err == nil && isAlpha2(code) {
			return 0, code
		}
	}
	return 0, ""
}

func isAlpha2(s string) bool {
	return len(s) == 2 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'A' && s[1] <= 'Z'
}

func systemOf(r maxminddb.Result) (uint32, string) {
	var number uint32
	var organization string
	err := errors.Join(
		r.DecodePath(&number, "autonomous_system_number"),
		r.DecodePath(&organization, "autonomous_system_organization"),
	)
	if err != nil {
		return 0, ""
	}
	return number, organization
}
