package traffic

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// maxMalformedListed bounds Truth.Malformed; the counts go on.
const maxMalformedListed = 20_000

// Sums are order-free checksums over good tuples: each field is the sum of one
// column, modulo 2^64, as ClickHouse's sum() over UInt64 gives it.
type Sums struct {
	TimeMS          uint64 `json:"time_ms"` // NSG seconds count as milliseconds.
	SrcIP           uint64 `json:"src_ip"`  // Upper plus lower 64 bits of the 16-byte form, big endian.
	DstIP           uint64 `json:"dst_ip"`
	SrcPort         uint64 `json:"src_port"`
	DstPort         uint64 `json:"dst_port"`
	Protocol        uint64 `json:"protocol"`
	PacketsSent     uint64 `json:"packets_sent"`
	BytesSent       uint64 `json:"bytes_sent"`
	PacketsReceived uint64 `json:"packets_received"`
	BytesReceived   uint64 `json:"bytes_received"`
	// Cross ties columns of one tuple together: the sum of time_ms * (65536 *
	// src_port + dst_port) + bytes_sent * bytes_received.
	Cross uint64 `json:"cross"`
}

// SumsSQL is the select list that computes Sums, with its names, in ClickHouse
// over a table with the alias f whose columns are time (DateTime64(3)), src_ip and dst_ip (IPv6), src_port,
// dst_port, protocol and the four counters (unsigned).
const SumsSQL = `sum(toUInt64(toUnixTimestamp64Milli(f.time))) AS time_ms,
	sum(toUInt64(bitShiftRight(toUInt128(f.src_ip), 64)) + toUInt64(toUInt128(f.src_ip))) AS src_ip,
	sum(toUInt64(bitShiftRight(toUInt128(f.dst_ip), 64)) + toUInt64(toUInt128(f.dst_ip))) AS dst_ip,
	sum(toUInt64(f.src_port)) AS src_port, sum(toUInt64(f.dst_port)) AS dst_port, sum(toUInt64(f.protocol)) AS protocol,
	sum(f.packets_sent) AS packets_sent, sum(f.bytes_sent) AS bytes_sent,
	sum(f.packets_received) AS packets_received, sum(f.bytes_received) AS bytes_received,
	sum(toUInt64(toUnixTimestamp64Milli(f.time)) * (65536 * toUInt64(f.src_port) + f.dst_port) + f.bytes_sent * f.bytes_received) AS cross`

func (s *Sums) add(o *Sums) {
	s.TimeMS += o.TimeMS
	s.SrcIP += o.SrcIP
	s.DstIP += o.DstIP
	s.SrcPort += o.SrcPort
	s.DstPort += o.DstPort
	s.Protocol += o.Protocol
	s.PacketsSent += o.PacketsSent
	s.BytesSent += o.BytesSent
	s.PacketsReceived += o.PacketsReceived
	s.BytesReceived += o.BytesReceived
	s.Cross += o.Cross
}

// BlobTruth is what one blob holds, of what was committed.
type BlobTruth struct {
	Tuples    uint64 `json:"tuples"` // Good ones.
	Malformed uint64 `json:"malformed"`
	Records   uint64 `json:"records"`
	Appends   uint64 `json:"appends"`
	Bytes     uint64 `json:"bytes"` // With header and footer.
	Sums      Sums   `json:"sums"`
}

// MinuteTruth is what all blobs hold of one minute of event time.
type MinuteTruth struct {
	Tuples        uint64 `json:"tuples"`
	BytesSent     uint64 `json:"bytes_sent"`
	BytesReceived uint64 `json:"bytes_received"`
}

// MalformedTuple is a tuple that has to be quarantined.
type MalformedTuple struct {
	Blob         string `json:"blob"`          // Key of Truth.Blobs.
	RecordOffset int64  `json:"record_offset"` // Byte offset in the blob of the record's opening brace.
	Ordinal      int    `json:"ordinal"`       // Place in the record, from 0, malformed ones included.
	Kind         string `json:"kind"`          // fields, address, port, direction.
	Text         string `json:"text"`
}

// EventTruth counts events. Appends = Published - Duplicated + Dropped + Failed,
// once Run has returned.
type EventTruth struct {
	Published  uint64 `json:"published"`  // Accepted by the publish function, second copies included, noise not.
	Duplicated uint64 `json:"duplicated"` // Second copies among them.
	Reordered  uint64 `json:"reordered"`  // Held back so that a later one could overtake.
	Delayed    uint64 `json:"delayed"`
	Dropped    uint64 `json:"dropped"` // Withheld on purpose.
	Failed     uint64 `json:"failed"`  // Refused by the publish function, after retries.
	Noise      uint64 `json:"noise"`   // Published events that concern nobody.
}

// Truth is what the simulator knows about everything that it committed.
type Truth struct {
	Seed    uint64 `json:"seed"`
	Account string `json:"account"`
	// Totals over all blobs.
	Totals BlobTruth `json:"totals"`
	// Blobs by "account/container/path".
	Blobs map[string]BlobTruth `json:"blobs"`
	// Minutes by their first instant, Unix milliseconds.
	Minutes map[int64]MinuteTruth `json:"minutes"`
	// Malformed lists the malformed tuples, 20,000 at most; Totals counts all.
	Malformed []MalformedTuple `json:"malformed"`
	// Doubtful names blobs whose last commit was never answered, so that the
	// truth about them may be one append short. Empty in a healthy run.
	Doubtful []string   `json:"doubtful,omitempty"`
	Events   EventTruth `json:"events"`
}

// WriteFile writes the truth as JSON: a reader sees the old or the new file,
// never a part of it.
func (t Truth) WriteFile(path string) error {
	data, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("write truth %q: %w", path, err)
	}
	if err := writeAtomic(path, data); err != nil {
		return fmt.Errorf("write truth %q: %w", path, err)
	}
	return nil
}

func writeAtomic(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".truth-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()           // The first error is the one to report.
			_ = os.Remove(f.Name()) // Best effort.
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Chmod(0o644); err != nil { // Readable by others, like any file.
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// sort puts the list in the order of the blobs, whoever wrote first.
func (t *Truth) sort() {
	slices.SortFunc(t.Malformed, func(a, b MalformedTuple) int {
		return cmp.Or(cmp.Compare(a.Blob, b.Blob), cmp.Compare(a.RecordOffset, b.RecordOffset), cmp.Compare(a.Ordinal, b.Ordinal))
	})
}

// ReadTruth reads what WriteFile wrote.
func ReadTruth(path string) (Truth, error) {
	var t Truth
	data, err := os.ReadFile(path)
	if err != nil {
		return t, fmt.Errorf("read truth: %w", err)
	}
	if err := json.Unmarshal(data, &t); err != nil {
		return t, fmt.Errorf("read truth %q: %w", path, err)
	}
	return t, nil
}

// tally is the truth about records that are not committed yet.
type tally struct {
	tuples, malformed, records uint64
	sums                       Sums
	minutes                    []minuteTally // Few: a record spans two, late tuples some more.
	bad                        []MalformedTuple
}

type minuteTally struct {
	minute int64
	MinuteTruth
}

func (t *tally) reset() {
	*t = tally{minutes: t.minutes[:0], bad: t.bad[:0]}
}

// at returns the tally of the minute of a tuple's time.
func (t *tally) at(ms int64) *MinuteTruth {
	minute := floorDiv(ms, minuteMS)
	for i := len(t.minutes) - 1; i >= 0; i-- {
		if t.minutes[i].minute == minute {
			return &t.minutes[i].MinuteTruth
		}
	}
	t.minutes = append(t.minutes, minuteTally{minute: minute})
	return &t.minutes[len(t.minutes)-1].MinuteTruth
}

// ledger is the truth while it grows.
type ledger struct {
	mu    sync.Mutex
	truth Truth
}

func newLedger(cfg Config) *ledger {
	return &ledger{truth: Truth{
		Seed:    cfg.Seed,
		Account: cfg.Account,
		Blobs:   map[string]BlobTruth{},
		Minutes: map[int64]MinuteTruth{},
	}}
}

// commit adds one append to a blob, of length bytes in all now. before is how
// long the blob was, 0 if it is new. It tells whether the blob is new.
func (l *ledger) commit(blob string, t *tally, before, length int64) (created bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, known := l.truth.Blobs[blob]
	b.addTally(t, uint64(length-before))
	l.truth.Blobs[blob] = b
	l.truth.Totals.addTally(t, uint64(length-before))
	for i := range t.minutes {
		m := &t.minutes[i]
		have := l.truth.Minutes[m.minute*minuteMS]
		have.Tuples += m.Tuples
		have.BytesSent += m.BytesSent
		have.BytesReceived += m.BytesReceived
		l.truth.Minutes[m.minute*minuteMS] = have
	}
	room := maxMalformedListed - len(l.truth.Malformed)
	l.truth.Malformed = append(l.truth.Malformed, t.bad[:min(room, len(t.bad))]...)
	return !known
}

func (b *BlobTruth) addTally(t *tally, bytes uint64) {
	b.Tuples += t.tuples
	b.Malformed += t.malformed
	b.Records += t.records
	b.Appends++
	b.Bytes += bytes
	b.Sums.add(&t.sums)
}

func (l *ledger) doubt(blob string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.truth.Doubtful = append(l.truth.Doubtful, blob)
}

// snapshot copies the truth.
func (l *ledger) snapshot(events EventTruth) Truth {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.truth
	t.Blobs = maps.Clone(t.Blobs)
	t.Minutes = maps.Clone(t.Minutes)
	t.Malformed = slices.Clone(t.Malformed)
	t.sort()
	t.Doubtful = slices.Clone(t.Doubtful)
	t.Events = events
	return t
}
