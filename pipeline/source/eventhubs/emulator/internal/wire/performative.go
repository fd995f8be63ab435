package wire

import (
	"fmt"
	"slices"
)

// Descriptor codes.
const (
	CodeOpen           = 0x10
	CodeBegin          = 0x11
	CodeAttach         = 0x12
	CodeFlow           = 0x13
	CodeTransfer       = 0x14
	CodeDisposition    = 0x15
	CodeDetach         = 0x16
	CodeEnd            = 0x17
	CodeClose          = 0x18
	CodeError          = 0x1d
	CodeReceived       = 0x23
	CodeAccepted       = 0x24
	CodeRejected       = 0x25
	CodeSource         = 0x28
	CodeTarget         = 0x29
	CodeSASLMechanisms = 0x40
	CodeSASLInit       = 0x41
	CodeSASLChallenge  = 0x42
	CodeSASLResponse   = 0x43
	CodeSASLOutcome    = 0x44
)

// Performative is what a frame says.
type Performative interface {
	Code() uint64
	// fields gives all fields of the type, nulls included: some clients index into
	// the list without looking at its length.
	fields() List
}

// The performatives. Pointers are nil where the field is null and has no default.
type (
	// Open starts a connection.
	Open struct {
		ContainerID, Hostname string
		MaxFrameSize          uint32 // bytes
		ChannelMax            uint16
		IdleTimeout           uint32 // ms; 0 is none
		Properties            Map
	}
	// Begin starts a session.
	Begin struct {
		RemoteChannel                  *uint16
		NextOutgoingID                 uint32
		IncomingWindow, OutgoingWindow uint32 // transfers
		HandleMax                      uint32
	}
	// Attach starts a link.
	Attach struct {
		Name                 string
		Handle               uint32
		Receiver             bool // the role of who sends it
		SndSettle, RcvSettle uint8
		Source, Target       *Terminus
		InitialDeliveryCount *uint32
		MaxMessageSize       uint64 // bytes; 0 is none
		Offered, Desired     []Symbol
		Properties           Map
	}
	// Flow tells windows and credit.
	Flow struct {
		NextIncomingID                       *uint32
		IncomingWindow                       uint32
		NextOutgoingID, OutgoingWindow       uint32
		Handle                               *uint32
		DeliveryCount, LinkCredit, Available *uint32
		Drain, Echo                          bool
	}
	// Transfer carries a message or a part of it.
	Transfer struct {
		Handle        uint32
		DeliveryID    *uint32
		DeliveryTag   []byte
		MessageFormat *uint32
		Settled       *bool
		More, Aborted bool
	}
	// Disposition tells the fate of deliveries.
	Disposition struct {
		Receiver bool
		First    uint32
		Last     *uint32
		Settled  bool
		State    any
	}
	// Detach ends a link.
	Detach struct {
		Handle uint32
		Closed bool
		Error  *Error
	}
	// End ends a session.
	End struct{ Error *Error }
	// Close ends a connection.
	Close struct{ Error *Error }
	// SASLMechanisms offers ways to log in.
	SASLMechanisms struct{ Mechanisms []Symbol }
	// SASLInit picks one.
	SASLInit struct {
		Mechanism Symbol
		Response  []byte
		Hostname  string
	}
	// SASLOutcome ends the login: 0 is good, 1 bad credentials, 2 a mistake of the
	// system's.
	SASLOutcome struct{ Outcome uint8 }
)

// Terminus is a source or a target.
type Terminus struct {
	Descriptor any
	Fields     List
}

// Positions in a Terminus.
const (
	terminusAddress = 0
	terminusDynamic = 4
	sourceFilter    = 7
	sourceFields    = 11
	targetFields    = 7
)

// NewTarget makes a target with an address.
func NewTarget(address string) *Terminus {
	return &Terminus{Descriptor: uint64(CodeTarget), Fields: pad(List{address}, targetFields)}
}

// Address gives the address; empty when there is none.
func (t *Terminus) Address() string {
	if t == nil || len(t.Fields) <= terminusAddress {
		return ""
	}
	s, _ := t.Fields[terminusAddress].(string)
	return s
}

// Dynamic tells whether the peer wants the node to be made for it.
func (t *Terminus) Dynamic() bool {
	if t == nil || len(t.Fields) <= terminusDynamic {
		return false
	}
	b, _ := t.Fields[terminusDynamic].(bool)
	return b
}

// Filter gives the filters of a source.
func (t *Terminus) Filter() Map {
	if t == nil || len(t.Fields) <= sourceFilter {
		return nil
	}
	m, _ := t.Fields[sourceFilter].(Map)
	return m
}

// SetFilter replaces the filters of a source.
func (t *Terminus) SetFilter(m Map) {
	t.Fields = pad(slices.Clone(t.Fields), sourceFields)
	t.Fields[sourceFilter] = mapOrNil(m)
}

// Error says why a link, session or connection ended or a message was refused.
type Error struct {
	Condition   Symbol
	Description string
}

// Error gives condition and description.
func (e *Error) Error() string { return string(e.Condition) + ": " + e.Description }

// Described gives the error as a value.
func (e *Error) Described() any {
	return Described{uint64(CodeError), List{e.Condition, e.Description, nil}}
}

// Errorf makes an Error.
func Errorf(condition Symbol, format string, args ...any) *Error {
	return &Error{condition, fmt.Sprintf(format, args...)}
}

// Accepted is the outcome of a message that was taken.
func Accepted() any { return Described{uint64(CodeAccepted), List{}} }

// Rejected is the outcome of a message that was not.
func Rejected(e *Error) any { return Described{uint64(CodeRejected), List{e.Described()}} }

// Code gives the descriptor; so do all below.
func (*Open) Code() uint64           { return CodeOpen }
func (*Begin) Code() uint64          { return CodeBegin }          //nolint:revive // as Open
func (*Attach) Code() uint64         { return CodeAttach }         //nolint:revive // as Open
func (*Flow) Code() uint64           { return CodeFlow }           //nolint:revive // as Open
func (*Transfer) Code() uint64       { return CodeTransfer }       //nolint:revive // as Open
func (*Disposition) Code() uint64    { return CodeDisposition }    //nolint:revive // as Open
func (*Detach) Code() uint64         { return CodeDetach }         //nolint:revive // as Open
func (*End) Code() uint64            { return CodeEnd }            //nolint:revive // as Open
func (*Close) Code() uint64          { return CodeClose }          //nolint:revive // as Open
func (*SASLMechanisms) Code() uint64 { return CodeSASLMechanisms } //nolint:revive // as Open
func (*SASLInit) Code() uint64       { return CodeSASLInit }       //nolint:revive // as Open
func (*SASLOutcome) Code() uint64    { return CodeSASLOutcome }    //nolint:revive // as Open

func (p *Open) fields() List {
	return List{p.ContainerID, text(p.Hostname), p.MaxFrameSize, p.ChannelMax, nonZero(p.IdleTimeout), nil, nil, nil, nil, mapOrNil(p.Properties)}
}

func (p *Begin) fields() List {
	return List{ptr(p.RemoteChannel), p.NextOutgoingID, p.IncomingWindow, p.OutgoingWindow, p.HandleMax, nil, nil, nil}
}

func (p *Attach) fields() List {
	return List{
		p.Name, p.Handle, p.Receiver, p.SndSettle, p.RcvSettle,
		p.Source.value(sourceFields), p.Target.value(targetFields), nil, nil,
		ptr(p.InitialDeliveryCount), nonZero(p.MaxMessageSize), symbolsOrNil(p.Offered), symbolsOrNil(p.Desired), mapOrNil(p.Properties),
	}
}

func (p *Flow) fields() List {
	return List{
		ptr(p.NextIncomingID), p.IncomingWindow, p.NextOutgoingID, p.OutgoingWindow,
		ptr(p.Handle), ptr(p.DeliveryCount), ptr(p.LinkCredit), ptr(p.Available), p.Drain, p.Echo, nil,
	}
}

func (p *Transfer) fields() List {
	return List{
		p.Handle, ptr(p.DeliveryID), binaryOrNil(p.DeliveryTag), ptr(p.MessageFormat), ptr(p.Settled), p.More,
		nil, nil, nil, p.Aborted, nil,
	}
}

func (p *Disposition) fields() List {
	return List{p.Receiver, p.First, ptr(p.Last), p.Settled, p.State, nil}
}

func (p *Detach) fields() List         { return List{p.Handle, p.Closed, errorOrNil(p.Error)} }
func (p *End) fields() List            { return List{errorOrNil(p.Error)} }
func (p *Close) fields() List          { return List{errorOrNil(p.Error)} }
func (p *SASLMechanisms) fields() List { return List{Symbols(p.Mechanisms...)} }
func (p *SASLInit) fields() List {
	return List{p.Mechanism, binaryOrNil(p.Response), text(p.Hostname)}
}
func (p *SASLOutcome) fields() List { return List{p.Outcome, nil} }

func (t *Terminus) value(width int) any {
	if t == nil {
		return nil
	}
	return Described{t.Descriptor, pad(t.Fields, width)}
}

func pad(l List, width int) List {
	for len(l) < width {
		l = append(l, nil)
	}
	return l
}

func ptr[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}

func nonZero[T uint32 | uint64](v T) any {
	if v == 0 {
		return nil
	}
	return v
}

func text(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func mapOrNil(m Map) any {
	if m == nil {
		return nil
	}
	return m
}

func binaryOrNil(b []byte) any {
	if b == nil {
		return nil
	}
	return b
}

func symbolsOrNil(s []Symbol) any {
	if len(s) == 0 {
		return nil
	}
	return Symbols(s...)
}

func errorOrNil(e *Error) any {
	if e == nil {
		return nil
	}
	return e.Described()
}
