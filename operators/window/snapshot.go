package window

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/zeebo/xxh3"

	"github.com/millrace/millrace/operators/sketch"
	"github.com/millrace/millrace/pipeline/mutant"
)

// A snapshot is
//
//	"MRWN", version (2 bytes), length of the payload (8 bytes)
//	payload
//	xxh3-64 of everything before (8 bytes)
//
// with fixed numbers lowest byte first and every other number a shortest uvarint.
// The payload is the watermark (8 bytes), the number of tables, and for each table
// its name, its fingerprint, the length of the rest (8 bytes), for each text column
// the texts in use, sorted, the number of open windows, and for each window by
// rising start: start (8 bytes), number of entries, 1 if the last of them is the
// overflow group, in this case what evictions have taken off each measure, and the
// entries sorted: key words (8 bytes each, ranks of texts instead of ids; none for the
// overflow group), row count, sums, what the group may have missed of each measure
// (where there is an overflow group, and not for it), and for each sketch the number
// of registers and these as index and value.
//
// Version 1 had neither of the numbers of evictions, because there were none.
const (
	snapshotMagic   = "MRWN"
	snapshotVersion = 2
	snapshotHeader  = len(snapshotMagic) + 2 + 8
	snapshotSum     = 8
)

// Errors of Restore.
var (
	// ErrSnapshot: the bytes are no snapshot, or damaged, or of a later version.
	ErrSnapshot = errors.New("snapshot is not usable")
	// ErrChanged: a window table of the snapshot is defined otherwise now.
	ErrChanged = errors.New("window definition has changed")
)

// Snapshot gives the state. Equal states give equal bytes, whatever way led to
// them.
func (o *Operator) Snapshot() ([]byte, error) {
	b := append(make([]byte, 0, 4096), snapshotMagic...)
	b = binary.LittleEndian.AppendUint16(b, snapshotVersion)
	b = binary.LittleEndian.AppendUint64(b, 0) // the payload's length, below
	b = binary.LittleEndian.AppendUint64(b, uint64(o.watermark))
	b = binary.AppendUvarint(b, uint64(len(o.windows)))
	for _, w := range o.windows {
		b = w.append(b)
	}
	binary.LittleEndian.PutUint64(b[snapshotHeader-8:], uint64(len(b)-snapshotHeader))
	return binary.LittleEndian.AppendUint64(b, xxh3.Hash(b)), nil
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

func (w *windows) append(b []byte) []byte {
	b = appendText(b, w.cfg.Name)
	b = appendText(b, w.cfg.fingerprint())
	length := len(b)
	b = binary.LittleEndian.AppendUint64(b, 0)
	b = w.appendWindows(b)
	binary.LittleEndian.PutUint64(b[length:], uint64(len(b)-length-8))
	return b
}

func (w *windows) appendWindows(b []byte) []byte {
	wins := make([]*window, 0, len(w.open))
	for _, win := range w.open {
		wins = append(wins, win)
	}
	slices.SortFunc(wins, func(a, b *window) int { return cmp.Compare(a.start, b.start) })
	if mutant.On(mutant.SnapshotForgetsWindow) {
		wins = wins[:max(0, len(wins)-1)]
	}
	ranks := w.rank(wins)
	for i, f := range w.fields {
		if f.isText() {
			b = binary.AppendUvarint(b, uint64(len(ranks[i].values)))
			for _, text := range ranks[i].values {
				b = appendText(b, text)
			}
		}
	}
	b = binary.AppendUvarint(b, uint64(len(wins)))
	for _, win := range wins {
		b = w.appendState(b, win, ranks)
	}
	return b
}

func (w *windows) appendState(b []byte, win *window, ranks []ranking) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(win.start))
	b = binary.AppendUvarint(b, uint64(win.count))
	b = append(b, flag(win.overflow >= 0))
	for _, v := range win.floor {
		b = binary.AppendUvarint(b, v)
	}
	sorted := w.sorted(win.groups, ranks)
	order := sorted.order
	if win.overflow >= 0 {
		at := slices.Index(order, uint32(win.overflow))
		order = append(slices.Delete(order, at, at+1), uint32(win.overflow))
	}
	var registers []sketch.Register
	for _, i := range order {
		if int(i) != win.overflow {
			for _, word := range sorted.key(i) {
				b = binary.LittleEndian.AppendUint64(b, word)
			}
		}
		for _, value := range win.entry(int(i))[w.words:] {
			b = binary.AppendUvarint(b, value)
		}
		if int(i) != win.overflow {
			for _, v := range win.missedOf(int(i)) {
				b = binary.AppendUvarint(b, v)
			}
		}
		for j := range w.distinct {
			registers = win.sketchesOf(int(i))[j].Append(registers[:0])
			b = binary.AppendUvarint(b, uint64(len(registers)))
			for _, r := range registers {
				b = append(binary.AppendUvarint(b, uint64(r.Index)), r.Value)
			}
		}
	}
	return b
}

// Restore replaces the state by a snapshot's. Tables that the snapshot does not
// know start empty; those that are no longer configured are left out. The caller
// sees to it that no batch is in doubt while the configuration changes: its rows
// would be others.
//
// Errors: ErrSnapshot or ErrChanged; the state stays what it was.
func (o *Operator) Restore(snapshot []byte) error {
	cfg := make([]Config, len(o.windows))
	for i, w := range o.windows {
		cfg[i] = w.cfg
	}
	fresh := newSeeded(cfg, o.alloc, o.seed)
	if err := fresh.read(snapshot); err != nil {
		return fmt.Errorf("restore windows: %w", err)
	}
	for i, w := range fresh.windows {
		w.stats, w.instruments, w.measured = o.windows[i].stats, o.windows[i].instruments, o.windows[i].measured
		w.measure()
	}
	*o = *fresh
	return nil
}
