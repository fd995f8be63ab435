package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/sinks/clickhouse"
)

// Result is the last line of a demo with -o json.
type Result struct {
	TuplesWritten    uint64  `json:"tuples_written"` // good and malformed, by the simulator's own books
	RowsLanded       uint64  `json:"rows_landed"`
	RowsInWindows    uint64  `json:"rows_in_windows"` // sum of rows over windows_traffic_1m
	EventsPublished  uint64  `json:"events_published"`
	EventsDuplicated uint64  `json:"events_duplicated"`
	EventsReordered  uint64  `json:"events_reordered"`
	EventsDelayed    uint64  `json:"events_delayed"`
	EventsDropped    uint64  `json:"events_dropped"`
	Malformed        uint64  `json:"malformed"`   // tuples that the simulator spoiled
	Quarantined      uint64  `json:"quarantined"` // entries in the table quarantine
	Lost             uint64  `json:"lost"`        // good tuples without a row
	Duplicated       uint64  `json:"duplicated"`  // rows beyond one for an address
	Altered          uint64  `json:"altered"`     // blobs whose column sums differ from the simulator's
	BytesInBlobs     uint64  `json:"bytes_in_blobs"`
	BytesFetched     uint64  `json:"bytes_fetched"`
	FetchRatio       float64 `json:"fetch_ratio"`
	Kills            int     `json:"kills"`
	Seconds          float64 `json:"seconds"` // from the estate's start until the last row had landed
	TuplesPerSecond  float64 `json:"tuples_per_second"`
	FirstRowSeconds  float64 `json:"first_row_seconds"` // since the start of the demo
	PipelineRSSMiB   int64   `json:"pipeline_rss_mib"`  // highest, of the pipeline's process
}

// reconcile ends the estate, lets the pipeline land everything, and compares what
// is in the tables with the simulator's own books.
func (d *demo) reconcile(ctx context.Context) error {
	d.say.line("stopping the estate, then the pipeline lands what is left ...")
	if err := d.post(ctx, d.estateURL+"/stop"); err != nil {
		return fmt.Errorf("demo: stop the estate: %w", err)
	}
	if err := d.drain(ctx); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	seconds := time.Since(d.fed).Seconds()
	truth, err := traffic.ReadTruth(d.truthFile)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	r, notes, err := d.compare(ctx, truth)
	if err != nil {
		return fmt.Errorf("demo: compare: %w", err)
	}
	r.Seconds, r.TuplesPerSecond = seconds, float64(r.RowsLanded)/seconds
	d.print(r, notes)
	// Tables kept from an earlier run hold its windows and quarantine too.
	sameTotals := d.cfg.Keep || r.RowsInWindows == r.RowsLanded && r.Quarantined == r.Malformed
	if r.Lost > 0 || r.Duplicated > 0 || r.Altered > 0 || !sameTotals {
		return fmt.Errorf("demo: %w: see the table above", ErrMismatch)
	}
	return nil
}

// drain asks the pipeline to land everything and end.
func (d *demo) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- d.pipeline.Stop(ctx) }()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case err := <-done:
			if err == nil {
				err = d.pipeline.Err()
			}
			if err != nil {
				return fmt.Errorf("the pipeline did not drain: %w: %s", err, d.pipeline.Tail())
			}
			return nil
		case <-ticker.C:
			// The last answer before the end has the final counts.
			_ = d.get(ctx, d.pipelineURL+"/status", &d.lastSeen)
			d.peakRSS = max(d.peakRSS, residentPeak(d.pipeline.Pid()))
		}
	}
}

// landed is what the table flows holds of one blob.
type landed struct {
	rows, addresses uint64
	sums            traffic.Sums
}

// perBlob compares addresses and the sums of every column that the simulator has
// books of.
const perBlob = `SELECT blob, count(), uniqExact(generation, record_offset, ordinal),
	sum(toUInt64(toUnixTimestamp64Milli(time))), sum(toUInt64(src_port)), sum(toUInt64(dst_port)), sum(toUInt64(protocol)),
	sum(packets_sent), sum(bytes_sent), sum(packets_received), sum(bytes_received),
	sum(toUInt64(toUnixTimestamp64Milli(time)) * (65536 * toUInt64(src_port) + dst_port) + bytes_sent * bytes_received)
FROM flows GROUP BY blob`

func (d *demo) compare(ctx context.Context, truth traffic.Truth) (Result, []string, error) {
	r := Result{
		TuplesWritten:   truth.Totals.Tuples + truth.Totals.Malformed,
		EventsPublished: truth.Events.Published, EventsDuplicated: truth.Events.Duplicated, EventsReordered: truth.Events.Reordered,
		EventsDelayed: truth.Events.Delayed, EventsDropped: truth.Events.Dropped,
		Malformed: truth.Totals.Malformed, BytesInBlobs: truth.Totals.Bytes,
		BytesFetched: uint64(d.fetched + d.lastSeen.BytesFetched), Kills: d.kills, FirstRowSeconds: d.firstRow.Seconds(), PipelineRSSMiB: d.peakRSS >> 20,
	}
	if r.BytesInBlobs > 0 {
		r.FetchRatio = float64(r.BytesFetched) / float64(r.BytesInBlobs)
	}
	conn, err := d.tables()
	if err != nil {
		return r, nil, err
	}
	blobs, err := landedBlobs(ctx, conn)
	if err != nil {
		return r, nil, err
	}
	notes := r.judge(truth, blobs, d.cfg.Keep)
	if r.RowsInWindows, err = d.count(ctx, "SELECT sum(rows) FROM windows_traffic_1m"); err != nil {
		return r, nil, err
	}
	r.Quarantined, err = d.count(ctx, "SELECT count() FROM quarantine")
	return r, notes, err
}

// tables gives a connection to the demo's database; it is closed with the demo.
func (d *demo) tables() (driver.Conn, error) {
	if d.sink == nil {
		cfg := clickhouse.DefaultConfig()
		cfg.URL, cfg.Database = d.url, d.database
		sink, err := clickhouse.New(cfg, nil)
		if err != nil {
			return nil, err
		}
		d.sink = sink
	}
	return d.sink.Conn()
}

// count asks for one number.
func (d *demo) count(ctx context.Context, sql string) (n uint64, err error) {
	conn, err := d.tables()
	if err != nil {
		return 0, err
	}
	return n, conn.QueryRow(ctx, sql).Scan(&n)
}

func landedBlobs(ctx context.Context, conn driver.Conn) (map[string]landed, error) {
	rows, err := conn.Query(ctx, perBlob)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[string]landed{}
	for rows.Next() {
		var name string
		var l landed
		s := &l.sums
		if err := rows.Scan(&name, &l.rows, &l.addresses, &s.TimeMS, &s.SrcPort, &s.DstPort, &s.Protocol,
			&s.PacketsSent, &s.BytesSent, &s.PacketsReceived, &s.BytesReceived, &s.Cross); err != nil {
			return nil, err
		}
		out[name] = l
	}
	return out, rows.Err()
}

// judge fills in what is lost, doubled and altered, and names the blobs.
func (r *Result) judge(truth traffic.Truth, blobs map[string]landed, keep bool) []string {
	var notes []string
	for name, want := range truth.Blobs {
		got := blobs[name]
		delete(blobs, name)
		r.RowsLanded += got.rows
		if got.addresses < want.Tuples {
			r.Lost += want.Tuples - got.addresses
			notes = append(notes, fmt.Sprintf("%s: %d of %d tuples are missing", name, want.Tuples-got.addresses, want.Tuples))
		}
		surplus := got.rows - got.addresses
		if got.addresses > want.Tuples {
			surplus += got.addresses - want.Tuples
		}
		if surplus > 0 {
			r.Duplicated += surplus
			notes = append(notes, fmt.Sprintf("%s: %d rows too many", name, surplus))
		}
		// The addresses' own sums are not compared here: decoders are tested for them.
		sums := want.Sums
		sums.SrcIP, sums.DstIP = 0, 0
		if got.rows == want.Tuples && got.sums != sums {
			r.Altered++
			notes = append(notes, fmt.Sprintf("%s: column sums differ: landed %+v, written %+v", name, got.sums, sums))
		}
	}
	for name, got := range blobs {
		if !keep {
			r.RowsLanded += got.rows
			r.Duplicated += got.rows
			notes = append(notes, fmt.Sprintf("%s: %d rows of a blob that nobody wrote", name, got.rows))
		}
	}
	slices.Sort(notes)
	return notes
}

func (d *demo) print(r Result, notes []string) {
	for i, n := range notes {
		if i == 20 {
			d.say.line("  ... and %d more", len(notes)-i)
			break
		}
		d.say.line("  %s", n)
	}
	verdict := "every tuple is in the table exactly once"
	if r.Lost+r.Duplicated+r.Altered > 0 {
		verdict = "THE TABLES DO NOT MATCH WHAT WAS WRITTEN"
	}
	out := func(format string, args ...any) { d.say.line(format, args...) }
	out("")
	out("reconciled: %s", verdict)
	out("  tuples written   %15s", thousands(int64(r.TuplesWritten)))
	out("  rows landed      %15s   in windows %s", thousands(int64(r.RowsLanded)), thousands(int64(r.RowsInWindows)))
	out("  lost             %15d   duplicated %d   altered blobs %d", r.Lost, r.Duplicated, r.Altered)
	out("  quarantined      %15d   malformed tuples written %d", r.Quarantined, r.Malformed)
	out("  events           %15s   duplicated %d   reordered %d   delayed %d   dropped %d", thousands(int64(r.EventsPublished)), r.EventsDuplicated, r.EventsReordered, r.EventsDelayed, r.EventsDropped)
	out("  bytes in blobs   %15s   fetched %s (%.3f)", thousands(int64(r.BytesInBlobs)), thousands(int64(r.BytesFetched)), r.FetchRatio)
	out("  %.1f s, %s tuples/s, first row after %.1f s, pipeline %d MiB, %d kills", r.Seconds, thousands(int64(r.TuplesPerSecond)), r.FirstRowSeconds, r.PipelineRSSMiB, r.Kills)
	if d.cfg.JSON {
		data, err := json.Marshal(r)
		if err != nil {
			panic("BUG: " + err.Error())
		}
		fmt.Fprintln(d.cfg.Out, string(data))
	}
}
