package main

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"

	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/schemas/rowtext"
)

// tableWriter prints the columns that people look at first, aligned. Widths are
// those of the widest value so far: they are right for a page and only grow.
type tableWriter struct {
	out    *bufio.Writer
	widths []int
	begun  bool
	clock  rowtext.Clock
}

var (
	tableHeads = []string{"TIME", "MAC", "SOURCE", "DESTINATION", "PROTO", "DIR", "STATE", "PACKETS", "BYTES", "RULE"}
	// tableRight marks the columns that are aligned to the right.
	tableRight = []bool{7: true, 8: true, 9: false}
)

func newTableWriter(w io.Writer) *tableWriter {
	t := &tableWriter{out: bufio.NewWriterSize(w, textBuffer), widths: make([]int, len(tableHeads))}
	t.widen(tableHeads)
	return t
}

func (t *tableWriter) batchRows() int { return decodeRows }

func (t *tableWriter) close() error {
	if !t.begun {
		t.print(tableHeads)
	}
	return t.out.Flush()
}

func (t *tableWriter) write(rec arrow.Record) error {
	column := func(name string) arrow.Array { return rec.Column(schemas.Flows.Index(name)) }
	texts := func(name string) func(int) string {
		c := column(name).(*array.Dictionary)
		words := rowtext.Words(c)
		for i := range words {
			words[i] = printable(words[i])
		}
		return func(row int) string { return words[c.GetValueIndex(row)] }
	}
	endpoint := func(address, port string) func(int) string {
		a, p := column(address).(*array.FixedSizeBinary), column(port).(*array.Uint16)
		return func(row int) string {
			return netip.AddrPortFrom(netip.AddrFrom16([16]byte(a.Value(row))).Unmap(), p.Value(row)).String()
		}
	}
	both := func(sent, received string) func(int) string {
		s, r := column(sent).(*array.Uint64), column(received).(*array.Uint64)
		return func(row int) string {
			return strconv.FormatUint(s.Value(row), 10) + "/" + strconv.FormatUint(r.Value(row), 10)
		}
	}
	time, protocol := column("time").(*array.Timestamp), column("protocol").(*array.Uint8)
	cells := []func(int) string{
		func(row int) string { return string(t.clock.Append(nil, int64(time.Value(row)))) },
		texts("mac"), endpoint("src_ip", "src_port"), endpoint("dst_ip", "dst_port"),
		func(row int) string { return protocolName(protocol.Value(row)) },
		texts("direction"), texts("state"), both("packets_sent", "packets_received"), both("bytes_sent", "bytes_received"), texts("rule"),
	}
	return t.page(cells, int(rec.NumRows()))
}

// page prints rows after it knows how wide they are.
func (t *tableWriter) page(cells []func(int) string, rows int) error {
	page := make([][]string, rows)
	for row := range page {
		page[row] = make([]string, len(cells))
		for i, cell := range cells {
			page[row][i] = cell(row)
		}
		t.widen(page[row])
	}
	if !t.begun {
		t.begun = true
		t.print(tableHeads)
	}
	for _, line := range page {
		if err := t.print(line); err != nil {
			return err
		}
	}
	return nil
}

func (t *tableWriter) widen(line []string) {
	for i, s := range line {
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(s))
	}
}

func (t *tableWriter) print(line []string) error {
	for i, s := range line {
		pad := strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(s))
		switch {
		case tableRight[i]:
			s = pad + s
		case i < len(line)-1:
			s += pad
		}
		if i > 0 {
			s = "  " + s
		}
		if _, err := t.out.WriteString(s); err != nil {
			return err
		}
	}
	return t.out.WriteByte('\n')
}

// protocolName names the protocols that flow logs are full of.
func protocolName(p uint8) string {
	switch p {
	case 1:
		return "icmp"
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 58:
		return "icmp6"
	}
	return fmt.Sprint(p)
}
