package wire

import (
	"errors"
	"fmt"
)

// Descriptor codes of message sections.
const (
	SectionHeader              = 0x70
	SectionDeliveryAnnotations = 0x71
	SectionMessageAnnotations  = 0x72
	SectionProperties          = 0x73
	SectionAppProperties       = 0x74
	SectionData                = 0x75
	SectionSequence            = 0x76
	SectionValue               = 0x77
	SectionFooter              = 0x78
)

// BatchFormat is the message format of a transfer whose Data sections are each a
// whole encoded message.
const BatchFormat = 0x80013700

// Message is an encoded message cut into the parts that a broker looks at. Its
// byte slices alias the encoded message.
type Message struct {
	Header        []byte // the section as sent; empty when there is none
	Annotations   Map    // message annotations
	Bare          []byte // properties up to the footer, as sent
	Properties    List
	AppProperties Map
	Data          [][]byte
	Value         any
}

// Index of fields in the properties section.
const (
	PropMessageID     = 0
	PropReplyTo       = 4
	PropCorrelationID = 5
	propFields        = 13
)

// Property gives field i of the properties section; nil when it is null or not
// there.
func (m *Message) Property(i int) any {
	if i >= len(m.Properties) {
		return nil
	}
	return m.Properties[i]
}

// ParseMessage cuts an encoded message into its sections. Sections must come in
// the order of the specification, each once except data and sequence; but the
// footer may stand before the body, where rhea (JavaScript) writes it.
func ParseMessage(b []byte) (*Message, error) {
	m := &Message{}
	last, footer := uint64(0), false
	for len(b) > 0 {
		v, rest, err := Parse(b)
		if err != nil {
			return nil, fmt.Errorf("parse message: %w", err)
		}
		d, ok := v.(Described)
		code, isCode := d.Descriptor.(uint64)
		if !ok || !isCode || code < SectionHeader || code > SectionFooter {
			return nil, errors.New("parse message: not a section")
		}
		repeats := code == SectionData || code == SectionSequence
		isBody := code >= SectionData && code < SectionFooter
		if code < last || (code == last && !repeats) || (footer && !isBody) {
			return nil, fmt.Errorf("parse message: section 0x%02x after 0x%02x", code, last)
		}
		if code >= SectionProperties && m.Bare == nil {
			m.Bare = b
		}
		if err := m.section(code, d.Value, b[:len(b)-len(rest)]); err != nil {
			return nil, err
		}
		if b = rest; code == SectionFooter {
			footer = true
		} else {
			last = code
		}
	}
	return m, nil
}

func (m *Message) section(code uint64, v any, raw []byte) error {
	ok := true
	switch code {
	case SectionHeader:
		m.Header = raw
		_, ok = v.(List)
	case SectionDeliveryAnnotations, SectionFooter:
		_, ok = v.(Map)
	case SectionMessageAnnotations:
		m.Annotations, ok = v.(Map)
	case SectionProperties:
		m.Properties, ok = v.(List)
	case SectionAppProperties:
		m.AppProperties, ok = v.(Map)
	case SectionData:
		data, isBinary := v.([]byte)
		ok = isBinary || v == nil // JavaScript's client writes null for a body of null
		m.Data = append(m.Data, data)
	case SectionSequence:
		_, ok = v.(List)
	case SectionValue:
		m.Value = v
	}
	if !ok {
		return fmt.Errorf("parse message: section 0x%02x holds %T", code, v)
	}
	return nil
}

// AppendSection writes one section.
func AppendSection(dst []byte, code uint64, v any) []byte {
	return Append(dst, Described{code, v})
}

// Answer encodes the answer to a request: correlation id (in the type in which the
// message id came), application properties and a value.
func Answer(correlation any, to string, app Map, value any) []byte {
	props := pad(List{nil, nil, text(to), nil, nil, correlation}, propFields)
	dst := AppendSection(nil, SectionProperties, props)
	dst = AppendSection(dst, SectionAppProperties, app)
	return AppendSection(dst, SectionValue, value)
}
