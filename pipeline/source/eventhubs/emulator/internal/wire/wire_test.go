package wire

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// samples holds one value of every type, at the edges of its encodings.
func samples() List {
	return List{
		nil, true, false,
		uint8(0), uint8(255), uint16(65535), uint32(0), uint32(255), uint32(256), uint32(math.MaxUint32),
		uint64(0), uint64(255), uint64(256), uint64(math.MaxUint64),
		int8(-128), int16(-300), int32(-128), int32(-129), int32(math.MaxInt32), int64(127), int64(128), int64(math.MinInt64),
		float32(1.5), float64(-2.25), Char('ß'), Timestamp(-62135596800000),
		UUID{1, 2, 15: 16},
		Decimal{codeDecimal32, "abcd"},
		Decimal{codeDecimal64, "abcdefgh"},
		Decimal{codeDecimal128, strings.Repeat("x", 16)},
		[]byte{},
		[]byte("short"), bytes.Repeat([]byte{7}, 256), "", "text", strings.Repeat("ü", 200),
		Symbol("amqp:symbol"), Symbol(strings.Repeat("s", 300)),
		List{},
		List{int32(1), List{"deep"}},
		Map{},
		Map{{Symbol("k"), uint64(1)}, {"k", nil}},
		Strings("0", "1"), Symbols(),
		Array{Code: codeBoolean, Items: []any{true, false}},
		Array{Code: codeList32, Items: []any{List{}, List{"a"}}},
		Array{Code: codeInt, Descriptor: uint64(5), Items: []any{int32(1), int32(-1)}},
		Described{uint64(0x468C00000004), "filter"},
		Described{Symbol("amqp:open:list"), List{nil}},
	}
}

func TestValuesRoundTrip(t *testing.T) {
	for _, v := range append(samples(), samples()) {
		b := Append(nil, v)
		got, rest, err := Parse(append(b, 0xff))
		if err != nil || !bytes.Equal(rest, []byte{0xff}) {
			t.Errorf("%T %v: rest %v, error %v", v, v, rest, err)
			continue
		}
		if diff := cmp.Diff(v, got); diff != "" {
			t.Errorf("%T: %s", v, diff)
		}
	}
}

// TestKnownEncodings checks bytes against the tables of the specification.
func TestKnownEncodings(t *testing.T) {
	tests := []struct {
		name string
		v    any
		want string
	}{
		{"null", nil, "\x40"},
		{"true", true, "\x41"},
		{"small ulong", uint64(0x10), "\x53\x10"},
		{"ulong zero", uint64(0), "\x44"},
		{"uint", uint32(0x10000), "\x70\x00\x01\x00\x00"},
		{"small int", int32(-1), "\x54\xff"},
		{"long", int64(1 << 40), "\x81\x00\x00\x01\x00\x00\x00\x00\x00"},
		{"timestamp", Timestamp(1), "\x83\x00\x00\x00\x00\x00\x00\x00\x01"},
		{"string", "ab", "\xa1\x02ab"},
		{"symbol", Symbol("ab"), "\xa3\x02ab"},
		{"list", List{true}, "\xd0\x00\x00\x00\x05\x00\x00\x00\x01\x41"},
		{"map", Map{{"a", nil}}, "\xd1\x00\x00\x00\x08\x00\x00\x00\x02\xa1\x01a\x40"},
		{"array", Strings("x"), "\xf0\x00\x00\x00\x0a\x00\x00\x00\x01\xb1\x00\x00\x00\x01x"},
	}
	for _, tt := range tests {
		if got := string(Append(nil, tt.v)); got != tt.want {
			t.Errorf("%s: % x, want % x", tt.name, got, tt.want)
		}
	}
}

// TestNarrowForms reads encodings that Append never writes.
func TestNarrowForms(t *testing.T) {
	tests := []struct {
		in   string
		want any
	}{
		{"\x56\x01", true},
		{"\xc0\x03\x02\x41\x42", List{true, false}},
		{"\xc1\x04\x02\xa1\x00\x43", Map{{"", uint32(0)}}},
		{"\xe0\x06\x02\xa1\x01a\x01b", Array{Code: codeStr32, Items: []any{"a", "b"}}},
		{"\xe0\x02\x03\x41", Array{Code: codeBoolean, Items: []any{true, true, true}}},
		{"\xe0\x02\x02\x45", Array{Code: codeList32, Items: []any{List{}, List{}}}},
	}
	for _, tt := range tests {
		got, rest, err := Parse([]byte(tt.in))
		if err != nil || len(rest) > 0 {
			t.Errorf("% x: rest %v, error %v", tt.in, rest, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("% x: %s", tt.in, diff)
		}
	}
}

func TestBadValues(t *testing.T) {
	for name, in := range map[string]string{
		"nothing":                  "",
		"unknown constructor":      "\x3f",
		"short fixed":              "\x80\x00",
		"short string":             "\xa1\x05ab",
		"string of 4 GiB":          "\xb1\xff\xff\xff\xff",
		"list of 4 G items":        "\xd0\x00\x00\x00\x05\xff\xff\xff\xff\x40",
		"array of 4 G empty items": "\xf0\x00\x00\x00\x05\xff\xff\xff\xff\x40",
		"bytes behind a list":      "\xc0\x02\x00\x40",
		"odd map":                  "\xc1\x02\x01\x40",
		"boolean of 2":             "\x56\x02",
		"no UTF-8":                 "\xa1\x01\xff",
		"list of lists of …":       strings.Repeat("\x00", 100),
		"item reaches out":         "\xc0\x03\x01\xa1\x05abcde",
	} {
		if v, _, err := Parse([]byte(in)); err == nil {
			t.Errorf("%s: got %v, want an error", name, v)
		}
	}
}

func frames() []Performative {
	n, ch, yes, pending := uint32(7), uint16(3), true, Symbol("x")
	target := NewTarget("node")
	source := &Terminus{Descriptor: uint64(CodeSource), Fields: pad(List{"hub"}, sourceFields)}
	source.SetFilter(Map{{pending, Described{uint64(1), "f"}}})
	return []Performative{
		&Open{ContainerID: "c", Hostname: "h", MaxFrameSize: 512, ChannelMax: 9, IdleTimeout: 30, Properties: Map{{pending, "p"}}},
		&Begin{RemoteChannel: &ch, NextOutgoingID: 1, IncomingWindow: 2, OutgoingWindow: 3, HandleMax: 4},
		&Attach{
			Name: "l", Handle: 1, Receiver: true, SndSettle: 1, RcvSettle: 1, Source: source, Target: target,
			InitialDeliveryCount: &n, MaxMessageSize: 9, Offered: []Symbol{"a"}, Desired: []Symbol{"b", "c"}, Properties: Map{{pending, int64(1)}},
		},
		&Attach{Name: "refused", SndSettle: 2},
		&Flow{NextIncomingID: &n, IncomingWindow: 1, NextOutgoingID: 2, OutgoingWindow: 3, Handle: &n, DeliveryCount: &n, LinkCredit: &n, Available: &n, Drain: true, Echo: true},
		&Flow{},
		&Transfer{Handle: 1, DeliveryID: &n, DeliveryTag: []byte("t"), MessageFormat: &n, Settled: &yes, More: true, Aborted: true},
		&Disposition{Receiver: true, First: 1, Last: &n, Settled: true, State: Accepted()},
		&Detach{Handle: 1, Closed: true, Error: Errorf("amqp:x", "text %d", 1)},
		&End{}, &End{Error: &Error{Condition: "c"}}, &Close{}, &Close{Error: &Error{"c", "d"}},
		&SASLMechanisms{Mechanisms: []Symbol{"PLAIN"}}, &SASLInit{Mechanism: "PLAIN", Response: []byte("r"), Hostname: "h"}, &SASLOutcome{Outcome: 1},
	}
}

func TestFramesRoundTrip(t *testing.T) {
	for _, p := range frames() {
		var payload []byte
		if p.Code() == CodeTransfer {
			payload = []byte("payload")
		}
		f, err := ReadFrame(bytes.NewReader(AppendFrame(nil, FrameAMQP, 5, p, payload)), 1<<16)
		if err != nil || f.Channel != 5 {
			t.Fatalf("%T: channel %d, error %v", p, f.Channel, err)
		}
		got, rest, err := ParsePerformative(f.Body)
		if err != nil || string(rest) != string(payload) {
			t.Fatalf("%T: payload %q, error %v", p, rest, err)
		}
		if diff := cmp.Diff(p, got); diff != "" {
			t.Errorf("%T: %s", p, diff)
		}
	}
}

func TestReadFrameLimits(t *testing.T) {
	empty := AppendFrame(nil, FrameAMQP, 0, nil, nil)
	if f, err := ReadFrame(bytes.NewReader(empty), 8); err != nil || len(f.Body) > 0 {
		t.Errorf("empty frame: %v, %v", f, err)
	}
	for name, in := range map[string]string{
		"above the limit":       "\x00\x00\x02\x01\x02\x00\x00\x00",
		"size of 4 GiB":         "\xff\xff\xff\xff\x02\x00\x00\x00",
		"shorter than a header": "\x00\x00\x00\x07\x02\x00\x00\x00",
		"body in the header":    "\x00\x00\x00\x08\x01\x00\x00\x00",
		"body behind the end":   "\x00\x00\x00\x08\x03\x00\x00\x00",
	} {
		var bad *FrameError
		if _, err := ReadFrame(strings.NewReader(in), 512); !errors.As(err, &bad) {
			t.Errorf("%s: error %v, want a FrameError", name, err)
		}
	}
	if _, err := ReadFrame(strings.NewReader(""), 512); !errors.Is(err, io.EOF) {
		t.Errorf("end of input: error %v", err)
	}
	if _, err := ReadFrame(strings.NewReader("\x00\x00\x00\x09\x02\x00\x00\x00"), 512); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut frame: error %v", err)
	}
}

func TestMessageSections(t *testing.T) {
	b := AppendSection(nil, SectionHeader, List{true})
	head := len(b)
	b = AppendSection(b, SectionMessageAnnotations, Map{{Symbol("k"), "v"}})
	bare := len(b)
	b = AppendSection(b, SectionProperties, List{"id"})
	b = AppendSection(b, SectionAppProperties, Map{{"a", int32(1)}})
	b = AppendSection(b, SectionData, []byte("one"))
	b = AppendSection(b, SectionData, []byte("two"))
	b = AppendSection(b, SectionFooter, Map{})
	m, err := ParseMessage(b)
	if err != nil {
		t.Fatal(err)
	}
	want := &Message{
		Header: b[:head], Annotations: Map{{Symbol("k"), "v"}}, Bare: b[bare:], Properties: List{"id"},
		AppProperties: Map{{"a", int32(1)}}, Data: [][]byte{[]byte("one"), []byte("two")},
	}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Error(diff)
	}
	// What JavaScript's client writes: a body of null, and the footer before it.
	odd := AppendSection(AppendSection(nil, SectionFooter, Map{}), SectionData, nil)
	if m, err := ParseMessage(odd); err != nil || len(m.Data) != 1 || !bytes.Equal(m.Bare, odd) {
		t.Errorf("null behind the footer: %+v, %v", m, err)
	}
	for name, b := range map[string][]byte{
		"two footers":  AppendSection(AppendSection(nil, SectionFooter, Map{}), SectionFooter, Map{}),
		"footer first": AppendSection(AppendSection(nil, SectionFooter, Map{}), SectionHeader, List{}),
		"out of order": AppendSection(AppendSection(nil, SectionData, []byte{}), SectionHeader, List{}),
		"twice":        AppendSection(AppendSection(nil, SectionHeader, List{}), SectionHeader, List{}),
		"wrong type":   AppendSection(nil, SectionData, "text"),
		"no section":   Append(nil, Described{uint64(0x60), nil}),
		"plain value":  Append(nil, "text"),
	} {
		if m, err := ParseMessage(b); err == nil {
			t.Errorf("%s: got %+v, want an error", name, m)
		}
	}
}

// FuzzFrame: no input panics, and what can be read is written and read again
// without a change.
func FuzzFrame(f *testing.F) {
	for _, p := range frames() {
		f.Add(AppendFrame(nil, FrameAMQP, 1, p, nil))
	}
	f.Add(AppendFrame(nil, FrameAMQP, 0, nil, nil))
	f.Add(AppendFrame(nil, FrameAMQP, 0, &Transfer{}, AppendSection(nil, SectionData, []byte("x"))))
	for _, v := range samples() {
		f.Add(AppendFrame(nil, FrameAMQP, 0, &Disposition{State: v}, nil))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		frame, err := ReadFrame(bytes.NewReader(in), 1<<16)
		if err != nil {
			return
		}
		if len(frame.Body) > len(in) {
			t.Fatalf("a body of %d bytes out of %d", len(frame.Body), len(in))
		}
		p, payload, err := ParsePerformative(frame.Body)
		if err != nil || p == nil {
			return
		}
		_, _ = ParseMessage(payload)
		once := AppendFrame(nil, frame.Type, frame.Channel, p, payload)
		again, err := ReadFrame(bytes.NewReader(once), 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		q, rest, err := ParsePerformative(again.Body)
		if err != nil {
			t.Fatal(err)
		}
		if twice := AppendFrame(nil, again.Type, again.Channel, q, rest); !bytes.Equal(once, twice) {
			t.Fatalf("% x\nbecame % x", once, twice)
		}
	})
}
