package window

import (
	"slices"
	"strings"
)

// texts gives small numbers to texts. Number 0 is always the empty text, so that
// the key of an overflow group, all zeros, reads as empty.
type texts struct {
	ids   map[string]uint32
	texts []string // by id
	free  []uint32 // ids to be given again
	bytes int      // of all texts
	kept  struct { // left by the last sweep
		texts, bytes int
	}
}

func newTexts() *texts {
	return &texts{ids: map[string]uint32{"": 0}, texts: []string{""}}
}

func (t *texts) id(text string) uint32 {
	if id, ok := t.ids[text]; ok {
		return id
	}
	// The text lies in the memory of a record batch that is only borrowed.
	text = strings.Clone(text)
	var id uint32
	if n := len(t.free); n > 0 {
		id, t.free = t.free[n-1], t.free[:n-1]
		t.texts[id] = text
	} else {
		id = uint32(len(t.texts))
		t.texts = append(t.texts, text)
	}
	t.ids[text] = id
	t.bytes += len(text)
	return id
}

// How many texts, and bytes of them, may be forgotten late; it keeps sweeps rare where
// few texts are in use.
const (
	sweepTexts = 4096
	sweepBytes = 4 << 20
)

// wantsSweep says that more than half of the texts may be out of use.
func (t *texts) wantsSweep() bool {
	return len(t.ids) > 2*t.kept.texts+sweepTexts || t.bytes > 2*t.kept.bytes+sweepBytes
}

// sweep forgets the texts whose ids are not marked; marks has an entry for each id.
func (t *texts) sweep(marks []bool) {
	for id, text := range t.texts {
		if id == 0 || marks[id] {
			continue
		}
		// A free id is "" here, which number 0 stands for.
		if text != "" {
			delete(t.ids, text)
			t.texts[id] = ""
			t.bytes -= len(text)
			t.free = append(t.free, uint32(id))
		}
	}
	t.kept.texts, t.kept.bytes = len(t.ids), t.bytes
}

// ranking orders the texts that are in use somewhere.
type ranking struct {
	ranks  []uint32 // by id; of use only for ids that are in values
	values []string // by rank, rising
}

func (t *texts) rank(marks []bool) ranking {
	r := ranking{ranks: make([]uint32, len(t.texts))}
	var used []uint32
	for id, marked := range marks {
		if marked {
			used = append(used, uint32(id))
		}
	}
	slices.SortFunc(used, func(a, b uint32) int { return strings.Compare(t.texts[a], t.texts[b]) })
	r.values = make([]string, len(used))
	for rank, id := range used {
		r.ranks[id] = uint32(rank)
		r.values[rank] = t.texts[id]
	}
	return r
}
