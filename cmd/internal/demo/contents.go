package demo

import (
	"context"
	"fmt"

	"github.com/millrace/millrace/bench/traffic"
)

// contents is what the tables hold of this run.
type contents struct {
	blobs      map[string]landedBlob
	quarantine map[address]uint64            // entries by the address they name
	minutes    map[int64]traffic.MinuteTruth // of windows_traffic_1m, by the first instant in Unix ms
}

// landedBlob is what the table flows holds of one blob.
type landedBlob struct {
	rows, addresses uint64 // addresses are distinct
	sums            traffic.Sums
}

// address is where a tuple stands.
type address struct {
	blob    string
	offset  uint64 // of the record
	ordinal uint32
}

// rowsPerPass bounds the server's memory: it needs some 50 bytes for each row that
// it looks at in one query.
const rowsPerPass = 10_000_000

// read asks for everything that is compared. It looks at the rows of this run only.
func (t *tables) read(ctx context.Context) (contents, error) {
	c := contents{blobs: map[string]landedBlob{}, quarantine: map[address]uint64{}, minutes: map[int64]traffic.MinuteTruth{}}
	rows, err := t.landed(ctx)
	if err != nil {
		return c, err
	}
	passes := 1 + rows/rowsPerPass
	for pass := range passes {
		if err := t.readBlobs(ctx, c.blobs, passes, pass); err != nil {
			return c, err
		}
	}
	if err := t.readQuarantine(ctx, c.quarantine); err != nil {
		return c, err
	}
	return c, t.readMinutes(ctx, c.minutes)
}

// readBlobs reads the blobs of one pass, which are chosen by the hashes of their
// names.
func (t *tables) readBlobs(ctx context.Context, into map[string]landedBlob, passes, pass uint64) error {
	return t.each(ctx, fmt.Sprintf(`SELECT f.blob, count(), uniqExact(f.generation, f.record_offset, f.ordinal), %s
FROM %s AS f WHERE f.batch_id >= %d AND cityHash64(f.blob) %% %d = %d GROUP BY f.blob`, traffic.SumsSQL, t.table("flows"), t.since, passes, pass),
		func(scan func(...any) error) error {
			var name string
			var l landedBlob
			s := &l.sums
			err := scan(&name, &l.rows, &l.addresses, &s.TimeMS, &s.SrcIP, &s.DstIP, &s.SrcPort, &s.DstPort, &s.Protocol,
				&s.PacketsSent, &s.BytesSent, &s.PacketsReceived, &s.BytesReceived, &s.Cross)
			into[name] = l
			return err
		})
}

func (t *tables) readQuarantine(ctx context.Context, into map[address]uint64) error {
	return t.each(ctx, fmt.Sprintf("SELECT blob, record_offset, ordinal, count() FROM %s WHERE batch_id >= %d GROUP BY ALL", t.table("quarantine"), t.since),
		func(scan func(...any) error) error {
			var a address
			var n uint64
			err := scan(&a.blob, &a.offset, &a.ordinal, &n)
			into[a] = n
			return err
		})
}

func (t *tables) readMinutes(ctx context.Context, into map[int64]traffic.MinuteTruth) error {
	return t.each(ctx, fmt.Sprintf("SELECT toUnixTimestamp64Milli(window_start), sum(rows), sum(bytes_sent), sum(bytes_received) FROM %s WHERE batch_id >= %d GROUP BY window_start",
		t.table("windows_traffic_1m"), t.since),
		func(scan func(...any) error) error {
			var start int64
			var m traffic.MinuteTruth
			err := scan(&start, &m.Tuples, &m.BytesSent, &m.BytesReceived)
			into[start] = m
			return err
		})
}

// each calls f for every row of the answer.
func (t *tables) each(ctx context.Context, sql string, f func(scan func(...any) error) error) error {
	rows, err := t.conn.Query(ctx, sql)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}
