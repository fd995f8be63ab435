package traffic

import (
	"fmt"
	"io"
	"time"
)

// Hour names the blob that an interface writes in an hour.
//
// Units: the hour that contains t, UTC.
// Errors: nic outside of [0, NICs) is a programming error and panics.
func (e *Estate) Hour(nic int, t time.Time) BlobName {
	return e.nics[nic].blob(floorDiv(t.UnixMilli(), hourMS))
}

// key is the name of a blob in Truth.
func (b BlobName) key() string { return b.Account + "/" + b.Container + "/" + b.Path }

// WriteHour writes the whole PT1H.json that an interface has at the end of the
// hour that contains t: sixty records, the same bytes as the live simulation of
// this configuration commits, if that ran through the hour.
//
// Units: TuplesPerMinute of the configuration sets the size, about 75 bytes per
// tuple.
// Errors: those of w.
func (e *Estate) WriteHour(w io.Writer, nic int, t time.Time) (Truth, error) {
	n := e.nics[nic]
	hour := floorDiv(t.UnixMilli(), hourMS)
	name := e.Hour(nic, t)
	g := newGenerator(e)
	book := newLedger(e.cfg)
	buf := []byte(blobHeader)
	var written, length int64
	for w0, i := n.firstWindow(hour*hourMS-minuteMS/2), int64(0); i < 60; i++ {
		if i > 0 {
			buf = append(buf, ',')
		}
		buf = g.record(buf, n, w0+i, name.key(), written+int64(len(buf)))
		last := i == 59
		if last {
			buf = append(buf, blobFooter...)
		}
		if _, err := w.Write(buf); err != nil {
			return Truth{}, fmt.Errorf("write %q: %w", name.Path, err)
		}
		written += int64(len(buf))
		now := written
		if !last {
			now += int64(len(blobFooter))
		}
		book.commit(name.key(), &g.tally, length, now)
		length = now
		g.tally.reset()
		buf = buf[:0]
	}
	return book.snapshot(EventTruth{}), nil
}

// WriteHour builds the estate of cfg and writes one hour of one interface. For
// many hours, build the estate once.
func WriteHour(w io.Writer, cfg Config, nic int, hour time.Time) (Truth, error) {
	e, err := NewEstate(cfg)
	if err != nil {
		return Truth{}, err
	}
	if nic < 0 || nic >= e.NICs() {
		return Truth{}, fmt.Errorf("write hour: interface %d of %d", nic, e.NICs())
	}
	return e.WriteHour(w, nic, hour)
}

// Merge adds the truth of o, about other blobs or other appends.
func (t *Truth) Merge(o Truth) {
	if t.Blobs == nil {
		t.Blobs, t.Minutes = map[string]BlobTruth{}, map[int64]MinuteTruth{}
		t.Seed, t.Account = o.Seed, o.Account
	}
	t.Totals.merge(o.Totals)
	for name, b := range o.Blobs {
		have := t.Blobs[name]
		have.merge(b)
		t.Blobs[name] = have
	}
	for minute, m := range o.Minutes {
		have := t.Minutes[minute]
		have.Tuples += m.Tuples
		have.BytesSent += m.BytesSent
		have.BytesReceived += m.BytesReceived
		t.Minutes[minute] = have
	}
	room := maxMalformedListed - len(t.Malformed)
	t.Malformed = append(t.Malformed, o.Malformed[:min(room, len(o.Malformed))]...)
	t.Doubtful = append(t.Doubtful, o.Doubtful...)
	t.Events.merge(o.Events)
}

func (b *BlobTruth) merge(o BlobTruth) {
	b.Tuples += o.Tuples
	b.Malformed += o.Malformed
	b.Records += o.Records
	b.Appends += o.Appends
	b.Bytes += o.Bytes
	b.Sums.add(&o.Sums)
}

func (e *EventTruth) merge(o EventTruth) {
	e.Published += o.Published
	e.Duplicated += o.Duplicated
	e.Reordered += o.Reordered
	e.Delayed += o.Delayed
	e.Dropped += o.Dropped
	e.Failed += o.Failed
	e.Noise += o.Noise
}
