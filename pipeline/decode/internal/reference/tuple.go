package reference

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// lastTime is the last millisecond of the year 9999.
const lastTime = 253402300799999

// tuple reads one element of flowTuples into the row.
func (d *decoder) tuple(raw []byte, row *Row) pipeline.Reason {
	s, reason := d.textOf(raw)
	if reason != "" {
		return reason
	}
	f := strings.Split(s, ",")
	if want := map[uint8]int{schemas.FormatVNet4: 13, schemas.FormatNSG1: 8, schemas.FormatNSG2: 13}[row.Format]; len(f) != want {
		return pipeline.ReasonFieldCount
	}
	t, err := strconv.ParseUint(f[0], 10, 63)
	if err != nil {
		return pipeline.ReasonTime
	}
	if t < 1e11 {
		t *= 1000
	}
	row.Time = int64(t)
	var ok [2]bool
	row.Src, ok[0] = address(f[1])
	row.Dst, ok[1] = address(f[2])
	if !ok[0] || !ok[1] {
		return pipeline.ReasonAddress
	}
	for i, to := range []*uint16{&row.SrcPort, &row.DstPort} {
		v, err := strconv.ParseUint(f[3+i], 10, 16)
		if err != nil {
			return pipeline.ReasonPort
		}
		*to = uint16(v)
	}
	if reason := words(f, row); reason != "" {
		return reason
	}
	counters := []*uint64{&row.PacketsSent, &row.BytesSent, &row.PacketsReceived, &row.BytesReceived}
	for i, to := range counters {
		*to = 0
		if len(f) == 8 || f[9+i] == "" {
			continue
		}
		if *to, err = strconv.ParseUint(f[9+i], 10, 64); err != nil {
			return pipeline.ReasonCounter
		}
	}
	if row.Time > lastTime || d.MinTime|d.MaxTime != 0 && (row.Time < d.MinTime || row.Time >= d.MaxTime) {
		return pipeline.ReasonTimeRange
	}
	return ""
}

// address reads an IPv4 or IPv6 address; a zone is no part of an address.
func address(s string) ([16]byte, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return [16]byte{}, false
	}
	return a.As16(), true
}

var (
	directions = map[string]uint8{"I": schemas.DirectionInbound, "O": schemas.DirectionOutbound}
	states     = map[string]uint8{"B": schemas.StateBegin, "C": schemas.StateContinuing, "E": schemas.StateEnd}
	transports = map[string]uint8{"T": 6, "U": 17}
)

// words reads protocol, direction, state, action and encryption.
func words(f []string, row *Row) pipeline.Reason {
	row.Encryption = ""
	var ok bool
	if row.Format == schemas.FormatVNet4 {
		v, err := strconv.ParseUint(f[5], 10, 8)
		row.Protocol, ok = uint8(v), err == nil
	} else {
		row.Protocol, ok = transports[f[5]]
	}
	if !ok {
		return pipeline.ReasonProtocol
	}
	if row.Direction, ok = directions[f[6]]; !ok {
		return pipeline.ReasonDirection
	}
	return state(f, row)
}

func state(f []string, row *Row) pipeline.Reason {
	var ok bool
	row.Action = schemas.ActionAllowed
	if row.Format == schemas.FormatVNet4 {
		row.Encryption = f[8]
		if f[7] == "D" {
			row.State, row.Action = schemas.StateDenied, schemas.ActionDenied
			return ""
		}
		if row.State, ok = states[f[7]]; !ok {
			return pipeline.ReasonState
		}
		return ""
	}
	if f[7] != "A" && f[7] != "D" {
		return pipeline.ReasonState
	}
	row.State = schemas.StateUnknown
	if row.Format == schemas.FormatNSG2 {
		if row.State, ok = states[f[8]]; !ok {
			return pipeline.ReasonState
		}
		if f[7] == "D" {
			row.State = schemas.StateDenied
		}
	}
	if f[7] == "D" {
		row.Action = schemas.ActionDenied
	}
	return ""
}
