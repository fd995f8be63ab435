package wire

import (
	"errors"
	"fmt"
	"math"
)

// ParsePerformative reads what a frame says and gives the payload behind it. An
// empty body gives a nil performative.
//
// Errors: an FrameError for a body that is no performative of the frame types known
// here, or one with a field of the wrong type or a mandatory field missing.
func ParsePerformative(body []byte) (Performative, []byte, error) {
	if len(body) == 0 {
		return nil, nil, nil
	}
	v, payload, err := Parse(body)
	if err != nil {
		return nil, nil, &FrameError{err}
	}
	d, ok := v.(Described)
	if !ok {
		return nil, nil, &FrameError{errors.New("the body is no described list")}
	}
	list, ok := d.Value.(List)
	if !ok {
		return nil, nil, &FrameError{errors.New("the body is no described list")}
	}
	f := &fields{list: list}
	p := f.performative(d.Descriptor)
	if f.err != nil {
		return nil, nil, &FrameError{f.err}
	}
	return p, payload, nil
}

// names maps the symbolic descriptors, which peers may use as well.
var names = map[Symbol]uint64{
	"amqp:open:list": CodeOpen, "amqp:begin:list": CodeBegin, "amqp:attach:list": CodeAttach,
	"amqp:flow:list": CodeFlow, "amqp:transfer:list": CodeTransfer, "amqp:disposition:list": CodeDisposition,
	"amqp:detach:list": CodeDetach, "amqp:end:list": CodeEnd, "amqp:close:list": CodeClose,
	"amqp:sasl-mechanisms:list": CodeSASLMechanisms, "amqp:sasl-init:list": CodeSASLInit,
	"amqp:sasl-outcome:list": CodeSASLOutcome,
}

func descriptorCode(d any) (uint64, bool) {
	switch d := d.(type) {
	case uint64:
		return d, true
	case Symbol:
		code, ok := names[d]
		return code, ok
	}
	return 0, false
}

// fields reads the list of a performative; the first mistake sticks.
type fields struct {
	list List
	err  error
}

func (f *fields) performative(descriptor any) Performative {
	code, _ := descriptorCode(descriptor)
	switch code {
	case CodeOpen:
		return f.open()
	case CodeBegin:
		return f.begin()
	case CodeAttach:
		return f.attach()
	case CodeFlow:
		return f.flow()
	case CodeTransfer:
		return f.transfer()
	case CodeDisposition:
		return f.disposition()
	case CodeDetach:
		return &Detach{Handle: need[uint32](f, 0), Closed: get(f, 1, false), Error: f.error(2)}
	case CodeEnd:
		return &End{Error: f.error(0)}
	case CodeClose:
		return &Close{Error: f.error(0)}
	case CodeSASLMechanisms:
		return &SASLMechanisms{Mechanisms: f.symbols(0)}
	case CodeSASLInit:
		return &SASLInit{Mechanism: need[Symbol](f, 0), Response: get[[]byte](f, 1, nil), Hostname: get(f, 2, "")}
	case CodeSASLOutcome:
		return &SASLOutcome{Outcome: need[uint8](f, 0)}
	}
	f.err = fmt.Errorf("unknown performative %v", descriptor)
	return nil
}

func (f *fields) open() *Open {
	return &Open{
		ContainerID: need[string](f, 0), Hostname: get(f, 1, ""),
		MaxFrameSize: get[uint32](f, 2, math.MaxUint32), ChannelMax: get[uint16](f, 3, math.MaxUint16),
		IdleTimeout: get[uint32](f, 4, 0), Properties: get[Map](f, 9, nil),
	}
}

func (f *fields) begin() *Begin {
	return &Begin{
		RemoteChannel: optional[uint16](f, 0), NextOutgoingID: need[uint32](f, 1),
		IncomingWindow: need[uint32](f, 2), OutgoingWindow: need[uint32](f, 3),
		HandleMax: get[uint32](f, 4, math.MaxUint32),
	}
}

func (f *fields) attach() *Attach {
	return &Attach{
		Name: need[string](f, 0), Handle: need[uint32](f, 1), Receiver: need[bool](f, 2),
		SndSettle: get[uint8](f, 3, 2), RcvSettle: get[uint8](f, 4, 0),
		Source: f.terminus(5), Target: f.terminus(6),
		InitialDeliveryCount: optional[uint32](f, 9), MaxMessageSize: get[uint64](f, 10, 0),
		Offered: f.symbols(11), Desired: f.symbols(12), Properties: get[Map](f, 13, nil),
	}
}

func (f *fields) flow() *Flow {
	return &Flow{
		NextIncomingID: optional[uint32](f, 0), IncomingWindow: need[uint32](f, 1),
		NextOutgoingID: need[uint32](f, 2), OutgoingWindow: need[uint32](f, 3),
		Handle: optional[uint32](f, 4), DeliveryCount: optional[uint32](f, 5),
		LinkCredit: optional[uint32](f, 6), Available: optional[uint32](f, 7),
		Drain: get(f, 8, false), Echo: get(f, 9, false),
	}
}

func (f *fields) transfer() *Transfer {
	return &Transfer{
		Handle: need[uint32](f, 0), DeliveryID: optional[uint32](f, 1), DeliveryTag: get[[]byte](f, 2, nil),
		MessageFormat: optional[uint32](f, 3), Settled: optional[bool](f, 4),
		More: get(f, 5, false), Aborted: get(f, 9, false),
	}
}

func (f *fields) disposition() *Disposition {
	d := &Disposition{
		Receiver: need[bool](f, 0), First: need[uint32](f, 1), Last: optional[uint32](f, 2),
		Settled: get(f, 3, false),
	}
	if len(f.list) > 4 {
		d.State = f.list[4]
	}
	return d
}

// get reads field i, or gives the default when it is null or not there.
func get[T any](f *fields, i int, def T) T {
	if i >= len(f.list) || f.list[i] == nil {
		return def
	}
	v, ok := f.list[i].(T)
	if !ok && f.err == nil {
		f.err = fmt.Errorf("field %d is %T, want %T", i, f.list[i], def)
	}
	return v
}

func need[T any](f *fields, i int) T {
	var zero T
	if (i >= len(f.list) || f.list[i] == nil) && f.err == nil {
		f.err = fmt.Errorf("field %d is missing", i)
	}
	return get(f, i, zero)
}

func optional[T any](f *fields, i int) *T {
	if i >= len(f.list) || f.list[i] == nil {
		return nil
	}
	var zero T
	v := get(f, i, zero)
	return &v
}

// symbols reads a field that holds no, one or many symbols.
func (f *fields) symbols(i int) []Symbol {
	if i >= len(f.list) {
		return nil
	}
	switch v := f.list[i].(type) {
	case nil:
		return nil
	case Symbol:
		return []Symbol{v}
	case Array:
		if v.Code == codeSym32 && v.Descriptor == nil {
			out := make([]Symbol, len(v.Items))
			for i, s := range v.Items {
				out[i] = s.(Symbol)
			}
			return out
		}
	}
	if f.err == nil {
		f.err = fmt.Errorf("field %d is %T, want symbols", i, f.list[i])
	}
	return nil
}

func (f *fields) terminus(i int) *Terminus {
	d := optional[Described](f, i)
	if d == nil {
		return nil
	}
	list, ok := d.Value.(List)
	if !ok && f.err == nil {
		f.err = fmt.Errorf("field %d is no list", i)
	}
	return &Terminus{Descriptor: d.Descriptor, Fields: list}
}

func (f *fields) error(i int) *Error {
	t := f.terminus(i)
	if t == nil {
		return nil
	}
	in := &fields{list: t.Fields}
	e := &Error{Condition: need[Symbol](in, 0), Description: get(in, 1, "")}
	if in.err != nil && f.err == nil {
		f.err = in.err
	}
	return e
}
