package window

import (
	"fmt"
	"net/netip"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/cockroachdb/datadriven"

	"github.com/millrace/millrace/pipeline"
)

// TestCases runs testdata/cases. Commands:
//
//	new [name= size= group=a,b sums= distinct= lateness= max=]   one table, empty state
//	apply watermark=HH:MM:SS|end        one batch; a line of input is one row:
//	                                    HH:MM:SS [mac=] [src=] [dst=] [port=] [bytes=] [rule=]
//	state                               what is held
//	restart                             a new operator, restored from a snapshot
func TestCases(t *testing.T) {
	datadriven.Walk(t, "testdata/cases", func(t *testing.T, path string) {
		alloc := memory.NewCheckedAllocator(memory.DefaultAllocator)
		defer alloc.AssertSize(t, 0)
		c := &cases{alloc: alloc}
		datadriven.RunTest(t, path, c.run)
	})
}

type cases struct {
	alloc memory.Allocator
	cfg   []Config
	o     *Operator
	seq   uint64
}

func (c *cases) run(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "new":
		return c.create(t, d)
	case "apply":
		return c.apply(t, d)
	case "state":
		return c.state()
	case "restart":
		c.o = restored(t, c.o, c.cfg, c.alloc)
		return c.state()
	default:
		d.Fatalf(t, "unknown command")
		return ""
	}
}

func (c *cases) create(t *testing.T, d *datadriven.TestData) string {
	cfg := Config{Name: "w", Size: time.Minute}
	for _, arg := range d.CmdArgs {
		switch arg.Key {
		case "size", "lateness":
			v, err := time.ParseDuration(arg.Vals[0])
			if err != nil {
				d.Fatalf(t, "%v", err)
			}
			if arg.Key == "size" {
				cfg.Size = v
			} else {
				cfg.Lateness = v
			}
		case "group":
			cfg.GroupBy = strings.Split(arg.Vals[0], "+")
		case "sums":
			cfg.Sums = strings.Split(arg.Vals[0], "+")
		case "distinct":
			cfg.Distinct = strings.Split(arg.Vals[0], "+")
		case "max":
			d.ScanArgs(t, "max", &cfg.MaxGroups)
		default:
			d.Fatalf(t, "unknown argument %s", arg.Key)
		}
	}
	o, err := New([]Config{cfg}, c.alloc)
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	c.cfg, c.o, c.seq = []Config{cfg}, o, 0
	return "ok\n"
}

func (c *cases) apply(t *testing.T, d *datadriven.TestData) string {
	in, release := input(t, c.alloc, c.seq, c.watermark(t, d), c.flows(t, d))
	defer release()
	c.seq++
	pieces, err := c.o.Apply(in)
	if err != nil {
		return err.Error() + "\n"
	}
	var b strings.Builder
	for _, p := range pieces {
		fmt.Fprintf(&b, "%s %s\n", p.Table, p.Partition)
		for _, r := range readPiece(t, c.cfg[0], p) {
			fmt.Fprintf(&b, "  %v\n", r)
		}
		p.Record.Release()
	}
	if b.Len() == 0 {
		return "nothing\n"
	}
	return b.String()
}

func (c *cases) watermark(t *testing.T, d *datadriven.TestData) pipeline.Watermark {
	var text string
	d.ScanArgs(t, "watermark", &text)
	if text == "end" {
		return pipeline.EndOfInput
	}
	return pipeline.Watermark(clock(t, d, text))
}

// clock reads a time of 23 November, or of the day after with a + before it.
func clock(t *testing.T, d *datadriven.TestData, text string) int64 {
	rest, next := strings.CutPrefix(text, "+")
	v, err := time.Parse("15:04:05.999", rest)
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	ms := midnight + int64(v.Sub(time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC))/time.Millisecond)
	if next {
		ms += dayMS
	}
	return ms
}

func (c *cases) flows(t *testing.T, d *datadriven.TestData) []flow {
	var flows []flow
	for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		f := flow{time: clock(t, d, words[0]), src: netip.IPv4Unspecified(), dst: netip.IPv4Unspecified()}
		for _, w := range words[1:] {
			key, value, _ := strings.Cut(w, "=")
			f.set(t, d, key, value)
		}
		flows = append(flows, f)
	}
	return flows
}

func (f *flow) set(t *testing.T, d *datadriven.TestData, key, value string) {
	switch key {
	case "mac":
		f.mac = value
	case "rule":
		f.rule = value
	case "src":
		f.src = netip.MustParseAddr(value)
	case "dst":
		f.dst = netip.MustParseAddr(value)
	case "port", "bytes":
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		if key == "port" {
			f.dstPort = uint16(n)
		} else {
			f.bytes = n
		}
	default:
		d.Fatalf(t, "unknown column %s", key)
	}
}

func (c *cases) state() string {
	var lines []string
	for _, w := range c.o.windows {
		for _, win := range w.open {
			line := fmt.Sprintf("%s groups=%d", time.UnixMilli(win.start).UTC().Format("02T15:04:05"), win.taken())
			if win.overflow >= 0 {
				line += " overflow"
			}
			lines = append(lines, line)
		}
	}
	sort.Strings(lines)
	return strings.Join(append(lines, fmt.Sprintf("%+v", c.o.Stats())), "\n") + "\n"
}
