package reconcile

import (
	"context"
	"fmt"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/schemas"
)

// Tables says where the rows are.
type Tables struct {
	Conn     driver.Conn
	Database string
	Since    uint64 // the least batch id that is looked at
}

// Contents is what tables hold of the batches that are looked at.
type Contents struct {
	Blobs      map[string]Blob
	Quarantine map[Address]uint64            // entries by the address they name
	Minutes    map[int64]traffic.MinuteTruth // of windows_traffic_1m, by the first instant in Unix ms
}

// Blob is what the table flows holds of one.
type Blob struct {
	Rows, Addresses uint64 // addresses are distinct
	Sums            traffic.Sums
}

// Address is where a tuple stands.
type Address struct {
	Blob    string
	Offset  uint64 // of the record
	Ordinal uint32
}

// rowsPerPass bounds the server's memory: it needs some 50 bytes for each row that
// it looks at in one query.
const rowsPerPass = 10_000_000

// Read asks for everything that is compared.
func (t Tables) Read(ctx context.Context) (Contents, error) {
	c := Contents{Blobs: map[string]Blob{}, Quarantine: map[Address]uint64{}, Minutes: map[int64]traffic.MinuteTruth{}}
	var rows uint64
	if err := t.Conn.QueryRow(ctx, "SELECT count() FROM "+t.name(schemas.Flows.Name)).Scan(&rows); err != nil {
		return c, err
	}
	passes := 1 + rows/rowsPerPass
	for pass := range passes {
		if err := t.readBlobs(ctx, c.Blobs, passes, pass); err != nil {
			return c, err
		}
	}
	if err := t.readQuarantine(ctx, c.Quarantine); err != nil {
		return c, err
	}
	return c, t.readMinutes(ctx, c.Minutes)
}

// readBlobs reads the blobs of one pass, which are chosen by the hashes of their
// names.
func (t Tables) readBlobs(ctx context.Context, into map[string]Blob, passes, pass uint64) error {
	return t.each(ctx, fmt.Sprintf(`SELECT f.blob, count(), uniqExact(f.generation, f.record_offset, f.ordinal), %s
FROM %s AS f WHERE f.batch_id >= %d AND cityHash64(f.blob) %% %d = %d GROUP BY f.blob`, traffic.SumsSQL, t.name(schemas.Flows.Name), t.Since, passes, pass),
		func(scan func(...any) error) error {
			var name string
			var l Blob
			s := &l.Sums
			err := scan(&name, &l.Rows, &l.Addresses, &s.TimeMS, &s.SrcIP, &s.DstIP, &s.SrcPort, &s.DstPort, &s.Protocol,
				&s.PacketsSent, &s.BytesSent, &s.PacketsReceived, &s.BytesReceived, &s.Cross)
			into[name] = l
			return err
		})
}

func (t Tables) readQuarantine(ctx context.Context, into map[Address]uint64) error {
	return t.each(ctx, fmt.Sprintf("SELECT blob, record_offset, ordinal, count() FROM %s WHERE batch_id >= %d GROUP BY ALL", t.name(schemas.Quarantine.Name), t.Since),
		func(scan func(...any) error) error {
			var a Address
			var n uint64
			err := scan(&a.Blob, &a.Offset, &a.Ordinal, &n)
			into[a] = n
			return err
		})
}

func (t Tables) readMinutes(ctx context.Context, into map[int64]traffic.MinuteTruth) error {
	return t.each(ctx, fmt.Sprintf("SELECT toUnixTimestamp64Milli(window_start), sum(rows), sum(bytes_sent), sum(bytes_received) FROM %s WHERE batch_id >= %d GROUP BY window_start",
		t.name("windows_traffic_1m"), t.Since),
		func(scan func(...any) error) error {
			var start int64
			var m traffic.MinuteTruth
			err := scan(&start, &m.Tuples, &m.BytesSent, &m.BytesReceived)
			into[start] = m
			return err
		})
}

// name gives a table's in full.
func (t Tables) name(table string) string {
	return schemas.QuoteName(t.Database) + "." + schemas.QuoteName(table)
}

// each calls f for every row of the answer.
func (t Tables) each(ctx context.Context, sql string, f func(scan func(...any) error) error) error {
	rows, err := t.Conn.Query(ctx, sql)
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
