package kafka

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/sinktest"
)

// shared is the one broker of this package's tests; each test has topics of its own.
// Its third listener is reached through front alone.
var (
	shared localtest.SharedKafka
	front  *cutter
	topics atomic.Int64 // sets of them that were given away
)

func TestMain(m *testing.M) {
	if os.Getenv(childOrder) != "" {
		child()
		return
	}
	var err error
	if front, err = newCutter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	shared.Proxy = front.listener.Addr().String()
	code := m.Run()
	front.close()
	shared.Stop()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// config gives a configuration with topics of its own.
func config(t testing.TB, addr string) Config {
	t.Helper()
	c := DefaultConfig()
	c.Broker.Brokers = []string{addr}
	c.Topics = map[string]string{}
	n := topics.Add(1)
	for _, table := range sinktest.Tables() {
		c.Topics[table.Name] = fmt.Sprintf("%s-%d", table.Name, n)
	}
	c.ProgressTopic = fmt.Sprintf("progress-%d", n)
	c.CreateTopics, c.Partitions, c.Replication = true, 1, 1
	return c
}

// open gives a sink that is closed with the test.
func open(t testing.TB, c Config) *Sink {
	t.Helper()
	s, err := New(c, sinktest.Tables(), Deps{Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// ready gives a sink with its topics.
func ready(t testing.TB, change func(*Config)) *Sink {
	t.Helper()
	c := config(t, shared.Broker(t).Addr)
	if change != nil {
		change(&c)
	}
	s := open(t, c)
	if err := s.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// consume gives everything in the topic that a reader of committed rows sees, with
// the control records between.
func consume(t testing.TB, addr, topic string) []*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ends := committed(ctx, t, kadm.NewClient(cl), topic)
	next := map[int32]int64{}
	var out []*kgo.Record
	behind := func() bool {
		for _, e := range ends[topic] {
			if next[e.Partition] < e.Offset {
				return true
			}
		}
		return false
	}
	for behind() {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			next[r.Partition] = r.Offset + 1
			out = append(out, r)
		})
	}
	return out
}

// committed waits until no transaction on the topic is open, and gives its ends.
func committed(ctx context.Context, t testing.TB, admin *kadm.Client, topic string) kadm.ListedOffsets {
	t.Helper()
	for {
		stable, err := admin.ListCommittedOffsets(ctx, topic)
		if err != nil {
			t.Fatal(err)
		}
		high, err := admin.ListEndOffsets(ctx, topic)
		if err != nil {
			t.Fatal(err)
		}
		open := false
		stable.Each(func(o kadm.ListedOffset) {
			h, _ := high.Lookup(topic, o.Partition)
			open = open || o.Offset < h.Offset
		})
		if !open {
			return stable
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// rows drops the control records.
func rows(records []*kgo.Record) []*kgo.Record {
	return slices.DeleteFunc(slices.Clone(records), func(r *kgo.Record) bool { return r.Attrs.IsControl() })
}

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// kcat runs the client of others and gives its output.
func kcat(t testing.TB, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	args = append(args, "-X", "fetch.wait.max.ms=10") // it waits so long at the end
	out, err := exec.CommandContext(ctx, localtest.Kcat(t), args...).Output()
	if err != nil {
		t.Fatalf("kcat %v: %v", args, err)
	}
	return out
}

// suite shows a sink to the conformance suite.
type suite struct{ c Config }

func (g suite) Open(t testing.TB) pipeline.Sink { return open(t, g.c) }

// Parts counts the rows between the ends of transactions.
func (g suite) Parts(t testing.TB, table schemas.Table) []int64 {
	t.Helper()
	var out []int64
	n := int64(0)
	for _, r := range consume(t, g.c.Broker.Brokers[0], g.c.Topics[table.Name]) {
		switch {
		case !r.Attrs.IsControl():
			n += rowsOf(t, r)
		case n > 0:
			out, n = append(out, n), 0
		}
	}
	slices.Sort(out)
	return out
}

// rowsOf reads how many rows a message says it has.
func rowsOf(t testing.TB, r *kgo.Record) int64 {
	t.Helper()
	var first, last int64
	switch n, err := fmt.Sscanf(header(r, HeaderRows), "%d-%d", &first, &last); {
	case n == 2:
		return last - first + 1
	case n == 1:
		return 1
	default:
		t.Fatalf("header %q is %q: %v", HeaderRows, header(r, HeaderRows), err)
		return 0
	}
}

// Read reads the topic by other ways than the sink's: kcat and encoding/json for
// JSON, Arrow's reader for Arrow.
func (g suite) Read(t testing.TB, table schemas.Table) []arrow.Record {
	t.Helper()
	if g.c.Format == FormatJSON {
		cl, err := kgo.NewClient(kgo.SeedBrokers(g.c.Broker.Brokers...))
		if err != nil {
			t.Fatal(err)
		}
		committed(t.Context(), t, kadm.NewClient(cl), g.c.Topics[table.Name])
		cl.Close()
		out := kcat(t, "-C", "-q", "-e", "-b", g.c.Broker.Brokers[0], "-t", g.c.Topics[table.Name], "-X", "isolation.level=read_committed")
		return []arrow.Record{parseJSON(t, table, out)}
	}
	var out []arrow.Record
	for _, r := range rows(consume(t, g.c.Broker.Brokers[0], g.c.Topics[table.Name])) {
		if len(r.Value) > MaxArrowMessage {
			t.Errorf("a message of %d bytes, want at most %d", len(r.Value), MaxArrowMessage)
		}
		out = append(out, readArrow(t, r.Value)...)
	}
	return out
}

func readArrow(t testing.TB, stream []byte) []arrow.Record {
	t.Helper()
	r, err := ipc.NewReader(bytes.NewReader(stream))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	var out []arrow.Record
	for r.Next() {
		rec := r.Record()
		rec.Retain()
		out = append(out, rec)
	}
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	return out
}

// parseJSON makes a record of lines of JSON.
func parseJSON(t testing.TB, table schemas.Table, lines []byte) arrow.Record {
	t.Helper()
	b := array.NewRecordBuilder(memory.DefaultAllocator, table.ArrowSchema())
	defer b.Release()
	for line := range bytes.Lines(lines) {
		var row map[string]json.RawMessage
		if err := json.Unmarshal(line, &row); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if len(row) != len(table.Columns) {
			t.Fatalf("a row has %d members, want %d: %s", len(row), len(table.Columns), line)
		}
		for i, c := range table.Columns {
			if err := parseValue(b.Field(i), row[c.Name]); err != nil {
				t.Fatalf("column %q: %s: %v", c.Name, row[c.Name], err)
			}
		}
	}
	return b.NewRecord()
}

func parseValue(b array.Builder, raw json.RawMessage) error {
	switch b := b.(type) {
	case *array.TimestampBuilder:
		var at time.Time
		err := json.Unmarshal(raw, &at)
		b.Append(arrow.Timestamp(at.UnixMilli()))
		return err
	case *array.FixedSizeBinaryBuilder:
		var a netip.Addr
		err := json.Unmarshal(raw, &a)
		full := a.As16()
		b.Append(full[:])
		return err
	case *array.BinaryDictionaryBuilder:
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return err
		}
		return b.AppendString(s)
	case *array.StringBuilder:
		var s string
		err := json.Unmarshal(raw, &s)
		b.Append(s)
		return err
	case *array.MapBuilder:
		return parseMap(b, raw)
	}
	return parseNumber(b, string(raw))
}

func parseMap(b *array.MapBuilder, raw json.RawMessage) error {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil {
		return err
	}
	b.Append(true)
	for k, v := range m {
		if err := parseNumber(b.KeyBuilder(), k); err != nil {
			return err
		}
		if err := parseNumber(b.ItemBuilder(), string(v)); err != nil {
			return err
		}
	}
	return nil
}

func parseNumber(b array.Builder, text string) error {
	if b, ok := b.(*array.Int16Builder); ok {
		n, err := strconv.ParseInt(text, 10, 16)
		b.Append(int16(n))
		return err
	}
	n, err := strconv.ParseUint(text, 10, 64)
	switch b := b.(type) {
	case *array.Uint8Builder:
		b.Append(uint8(n))
	case *array.Uint16Builder:
		b.Append(uint16(n))
	case *array.Uint32Builder:
		b.Append(uint32(n))
	case *array.Uint64Builder:
		b.Append(n)
	default:
		return fmt.Errorf("no numbers for %v", b.Type())
	}
	return err
}

// allocator is for records of tests that do not look for leaks.
var allocator = memory.DefaultAllocator

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}

// landAs lands a batch under epoch 1, and releases its pieces.
func landAs(t testing.TB, s pipeline.Sink, batch pipeline.BatchID, pieces ...pipeline.Piece) {
	t.Helper()
	planned, err := s.(pipeline.Planner).Plan(batch, pieces, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pieces {
		p.Release()
	}
	for _, p := range planned {
		if err := s.Land(t.Context(), batch, 1, p); err != nil {
			t.Error(err)
		}
		p.Release()
	}
}
