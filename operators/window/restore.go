package window

import (
	"encoding/binary"
	"fmt"

	"github.com/zeebo/xxh3"

	"github.com/millrace/millrace/operators/sketch"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/mutant"
)

// payloadOf checks a snapshot's frame and gives what is in it.
func payloadOf(snapshot []byte) (payload []byte, version uint16, err error) {
	if len(snapshot) < snapshotHeader+snapshotSum || string(snapshot[:len(snapshotMagic)]) != snapshotMagic {
		return nil, 0, fmt.Errorf("%w: %d bytes that do not begin as one", ErrSnapshot, len(snapshot))
	}
	if version = binary.LittleEndian.Uint16(snapshot[len(snapshotMagic):]); version == 0 || version > snapshotVersion {
		return nil, 0, fmt.Errorf("%w: version %d, this release reads 1 to %d", ErrSnapshot, version, snapshotVersion)
	}
	body, sum := snapshot[:len(snapshot)-snapshotSum], snapshot[len(snapshot)-snapshotSum:]
	payload = body[snapshotHeader:]
	if length := binary.LittleEndian.Uint64(body[snapshotHeader-8:]); length != uint64(len(payload)) {
		return nil, 0, fmt.Errorf("%w: %d bytes of payload, it says %d", ErrSnapshot, len(payload), length)
	}
	if xxh3.Hash(body) != binary.LittleEndian.Uint64(sum) {
		return nil, 0, fmt.Errorf("%w: the checksum is wrong", ErrSnapshot)
	}
	return payload, version, nil
}

// read fills an empty state.
func (o *Operator) read(snapshot []byte) error {
	payload, version, err := payloadOf(snapshot)
	if err != nil {
		return err
	}
	r := &reader{left: payload}
	o.watermark = pipeline.Watermark(r.fixed())
	r.check(o.watermark >= 0, "negative watermark")
	seen := map[string]bool{}
	for n := r.number(); n > 0 && r.err == nil; n-- {
		name, fingerprint := r.text(), r.text()
		body := &reader{left: r.bytes(r.fixed()), evictions: version > 1}
		r.check(!seen[name], "table twice")
		seen[name] = true
		w := o.table(name)
		if r.err != nil || w == nil {
			continue
		}
		if now := w.cfg.fingerprint(); now != fingerprint {
			return fmt.Errorf("%w: table windows_%s was written with %s, the configuration says %s: give the new definition a new name", ErrChanged, name, fingerprint, now)
		}
		w.read(body, o.watermark)
		body.check(len(body.left) == 0, "bytes behind the last window")
		if body.err != nil {
			return fmt.Errorf("table windows_%s: %w", name, body.err)
		}
	}
	if mutant.On(mutant.RestoreForgetsWatermark) {
		o.watermark = 0
	}
	r.check(len(r.left) == 0, "bytes behind the last table")
	return r.err
}

func (o *Operator) table(name string) *windows {
	for _, w := range o.windows {
		if w.cfg.Name == name {
			return w
		}
	}
	return nil
}

// read fills an empty table. It accepts nothing that Snapshot would have written
// otherwise, so that a restored state has the bytes it came from.
func (w *windows) read(r *reader, watermark pipeline.Watermark) {
	ids := make([][]uint32, len(w.fields)) // by field and rank
	used := make([][]bool, len(w.fields))
	for i, f := range w.fields {
		if f.isText() {
			ids[i] = r.texts(w.keys[i].texts, f.kind == kindWord)
			used[i] = make([]bool, len(ids[i]))
		}
	}
	last := int64(minTime) - w.size
	for n := r.number(); n > 0 && r.err == nil; n-- {
		start := int64(r.fixed())
		r.check(start > last && start%w.size == 0 && start < maxTime, "window out of order or place")
		r.check(r.err != nil || !w.closesBy(start, watermark), "window that has closed")
		last = start
		win := &window{start: start, groups: w.newGroups()}
		w.readWindow(r, win, ids, used)
		w.open[start] = win
		w.groups += win.taken()
		w.bytes += win.bytes
	}
	for _, ranks := range used {
		for _, u := range ranks {
			r.check(u, "text without use")
		}
	}
}

func (w *windows) readWindow(r *reader, win *window, ids [][]uint32, used [][]bool) {
	entries, overflow := r.number(), r.byte()
	r.check(entries > 0 && overflow <= 1, "window without groups")
	if overflow == 1 {
		win.floor = make([]uint64, win.measures())
		for i := 0; i < len(win.floor) && r.evictions; i++ {
			win.floor[i] = r.number()
		}
	}
	previous, key := make([]uint64, w.words), make([]uint64, w.words)
	for i := uint64(0); i < entries && r.err == nil; i++ {
		var at int
		if overflow == 1 && i == entries-1 {
			at = win.overflowEntry()
			for j := range used {
				if used[j] != nil {
					r.check(len(used[j]) > 0 && w.keys[j].texts.texts[ids[j][0]] == "", "overflow group without the empty text")
					if r.err == nil {
						used[j][0] = true
					}
				}
			}
		} else {
			w.readKey(r, key)
			r.check(i == 0 || compareKeys(previous, key) < 0, "groups out of order")
			copy(previous, key)
			w.rankToID(r, key, ids, used)
			at = win.add(tagOf(key, w.secret), key)
			if r.err == nil {
				win.bytes += w.sizeOf(key)
			}
		}
		w.readValues(r, win, at)
	}
}

// readKey reads a key with ranks and checks that the bits of no field are zero.
func (w *windows) readKey(r *reader, key []uint64) {
	for i := range key {
		key[i] = r.fixed()
	}
	for i, mask := range w.masks {
		r.check(key[i]&^mask == 0, "key of another layout")
	}
}

func (w *windows) rankToID(r *reader, key []uint64, ids [][]uint32, used [][]bool) {
	for j, f := range w.fields {
		if !f.isText() {
			continue
		}
		rank := f.get(key)
		r.check(rank < uint64(len(ids[j])), "unknown text")
		if r.err != nil {
			return
		}
		used[j][rank] = true
		f.put(key, uint64(ids[j][rank]))
	}
}

func (w *windows) readValues(r *reader, win *window, at int) {
	values := win.entry(at)[w.words:]
	for i := range values {
		values[i] = r.number()
	}
	r.check(values[0] > 0, "group without rows")
	if missed := win.missedOf(at); at != win.overflow && r.evictions {
		for i := range missed {
			missed[i] = r.number()
			r.check(missed[i] <= win.floor[i], "group that missed more than was evicted")
		}
	}
	for j := range w.distinct {
		last := -1
		n := r.number()
		r.check(n > 0 && n <= sketch.Registers, "sketch of impossible size")
		for ; n > 0 && r.err == nil; n-- {
			index, value := r.number(), r.byte()
			r.check(index < sketch.Registers && int(index) > last, "registers out of order")
			last = int(index)
			if r.err == nil && win.sketchesOf(at)[j].Set(sketch.Register{Index: uint16(index), Value: value}) != nil {
				r.check(false, "register out of range")
			}
		}
		if at != win.overflow {
			win.bytes += win.sketchesOf(at)[j].Bytes()
		}
	}
}

func compareKeys(a, b []uint64) int {
	for i, w := range a {
		if w != b[i] {
			if w < b[i] {
				return -1
			}
			return 1
		}
	}
	return 0
}

// reader reads numbers and texts until the first fault, and zeros from then on.
type reader struct {
	left      []byte
	err       error
	evictions bool // there are numbers of evictions
}

func (r *reader) check(ok bool, fault string) {
	if !ok && r.err == nil {
		r.err, r.left = fmt.Errorf("%w: %s", ErrSnapshot, fault), nil
	}
}

func (r *reader) bytes(n uint64) []byte {
	r.check(n <= uint64(len(r.left)), "it ends early")
	if r.err != nil {
		return nil
	}
	b := r.left[:n]
	r.left = r.left[n:]
	return b
}

func (r *reader) byte() uint8 {
	if b := r.bytes(1); r.err == nil {
		return b[0]
	}
	return 0
}

func (r *reader) fixed() uint64 {
	if b := r.bytes(8); r.err == nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// number reads a shortest uvarint.
func (r *reader) number() uint64 {
	v, n := binary.Uvarint(r.left)
	r.check(n == 1 || n > 1 && r.left[n-1] != 0, "bad number")
	if r.err != nil {
		return 0
	}
	r.left = r.left[n:]
	return v
}

func (r *reader) text() string { return string(r.bytes(r.number())) }

// texts reads a sorted list and gives the id of each.
func (r *reader) texts(into *texts, closed bool) []uint32 {
	var ids []uint32
	last := ""
	for n, i := r.number(), uint64(0); i < n && r.err == nil; i++ {
		text := r.text()
		r.check(i == 0 || text > last, "texts out of order")
		last = text
		if r.err == nil {
			ids = append(ids, into.id(text))
			r.check(!closed || ids[i] <= 255, "closed list too long")
		}
	}
	return ids
}
