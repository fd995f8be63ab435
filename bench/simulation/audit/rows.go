package audit

// rows compares rows with the tuples they say they are, and gives how often each
// tuple was found. A row that fits no tuple counts as altered.
func (a *auditor) rows(where string, rows []Row) []int {
	found := make([]int, len(a.book.Written))
	for _, r := range rows {
		i, ok := a.numbers[r.Number]
		if !ok {
			a.find(&a.verdict.Altered, "altered: %s has a row of %s, batch %d: nobody wrote it", where, r.Tuple, r.BatchID)
			continue
		}
		t := a.book.Written[i]
		if field, got, want := difference(r.Tuple, t); field != "" {
			a.find(&a.verdict.Altered, "altered: %s has %s with %s %v, want %v, batch %d", where, t, field, got, want, r.BatchID)
			continue
		}
		if found[i]++; found[i] > 1 {
			a.find(&a.verdict.Dup, "doubled: %s has %s for the %d. time, batch %d", where, t, found[i], r.BatchID)
			continue
		}
		a.generation(where, t, r.Generation)
	}
	a.apart(where)
	return found
}

// difference names the first field in which a row is not its tuple. The generation
// is judged by generation.
func difference(row, t Tuple) (field string, got, want any) {
	for _, f := range []struct {
		name      string
		got, want any
	}{
		{"blob", row.Blob, t.Blob},
		{"record_offset", row.Offset, t.Offset},
		{"ordinal", row.Ordinal, t.Ordinal},
		{"time", row.TimeMS, t.TimeMS},
		{"mac", row.MAC, t.MAC},
		{"src_ip", row.Src, t.Src},
		{"dst_ip", row.Dst, t.Dst},
		{"src_port", row.SrcPort, t.SrcPort},
		{"dst_port", row.DstPort, t.DstPort},
		{"protocol", row.Protocol, t.Protocol},
		{"allowed", row.Allowed, t.Allowed},
		{"packets", row.Packets, t.Packets},
		{"bytes", row.Bytes, t.Bytes},
		{"reason", "", t.Reason}, // a malformed tuple lands in quarantine alone
	} {
		if f.got != f.want {
			return f.name, f.got, f.want
		}
	}
	return "", nil, nil
}

// generation: the pipeline gives all tuples of one content of a blob one generation.
// It may be behind the truth's, because a content that was replaced before anybody
// read it counts for nothing; it is never ahead.
func (a *auditor) generation(where string, t Tuple, got int) {
	of := content{t.Blob, t.Generation}
	switch want, known := a.seen[of]; {
	case known && got != want:
		a.find(&a.verdict.Altered, "altered: %s has %s under generation %d, others of the same content under %d", where, t, got, want)
	case got > t.Generation || got < 0:
		a.find(&a.verdict.Altered, "altered: %s has %s under generation %d: the blob was not rewritten so often", where, t, got)
	default:
		a.seen[of] = got
	}
}

// apart: two contents of one blob never share a generation, or addresses would not be
// unique; later ones have higher generations.
func (a *auditor) apart(where string) {
	highest := map[string]int{} // generation of the content before, by blob
	for _, of := range sortedContents(a.seen) {
		got := a.seen[of]
		if before, ok := highest[of.blob]; ok && got <= before {
			a.find(&a.verdict.Altered, "altered: %s has content %d of blob %q under generation %d, and an earlier content under %d", where, of.generation, of.blob, got, before)
		}
		highest[of.blob] = got
	}
}

// quarantine: every malformed tuple is there once with its reason, and nothing else.
func (a *auditor) quarantine() {
	for _, r := range a.book.Rejected {
		i, how := a.rejected(r)
		switch how {
		case fits:
			a.reject[i] = true
			a.inItsBatch("quarantine", a.book.Written[i], content{r.Blob, r.Generation}, r.BatchID)
		case again:
			a.find(&a.verdict.Dup, "doubled: quarantine has %s again, batch %d", a.book.Written[i], r.BatchID)
		case otherwise:
			a.find(&a.verdict.Altered, "altered: quarantine has %s as %q, want %q, batch %d", a.book.Written[i], r.Reason, a.book.Written[i].Reason, r.BatchID)
		default:
			a.find(&a.verdict.Altered, "altered: quarantine has an entry %q at byte %d, ordinal %d of blob %q, batch %d: nobody wrote it", r.Reason, r.Offset, r.Ordinal, r.Blob, r.BatchID)
		}
	}
}

type match int

const (
	nothing match = iota
	otherwise
	again
	fits
)

// rejected finds the tuple of an entry. It has no number, so whatever the blob ever had
// at that place is tried, unless rows have shown that it has another generation.
func (a *auditor) rejected(r Rejected) (tuple int, how match) {
	best := nothing
	for _, i := range a.places[place{r.Blob, r.Offset, r.Ordinal}] {
		t := a.book.Written[i]
		if got, known := a.seen[content{t.Blob, t.Generation}]; known && got != r.Generation || t.Generation < r.Generation {
			continue
		}
		is := fits
		switch {
		case t.Reason != r.Reason:
			is = otherwise
		case a.reject[i]:
			is = again
		}
		if is > best {
			tuple, best = i, is
		}
	}
	return tuple, best
}

// sameRows: the topic holds what the table holds.
func (a *auditor) sameRows(table, topic []int) {
	for i, t := range a.book.Written {
		if table[i] > 0 && topic[i] == 0 {
			a.find(&a.verdict.Lost, "lost: the table has %s, the topic has not", t)
		}
		if table[i] == 0 && topic[i] > 0 {
			a.find(&a.verdict.Lost, "lost: the topic has %s, the table has not", t)
		}
	}
}
