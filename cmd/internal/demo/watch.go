package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace/millrace/cmd/internal/digits"
)

const (
	// firstRowPoll is how often the table is asked for its first row.
	firstRowPoll = 200 * time.Millisecond
	statusEvery  = time.Second
)

// minLife lets every pipeline do something before it is killed.
const minLife = time.Second

// chaosSpan is what the kills of a demo without an end are spread over.
const chaosSpan = time.Minute

// watch shows the status until the time is up and every kill is done, an interrupt
// comes, or a child ends that should not.
func (d *demo) watch(ctx context.Context) error {
	first := time.NewTicker(firstRowPoll)
	defer first.Stop()
	status := time.NewTicker(statusEvery)
	defer status.Stop()
	began := time.Now()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-d.drain:
			return nil
		case err := <-d.group.Failed():
			return d.explain(err)
		case <-first.C:
			if d.lookForRows(ctx) > 0 {
				first.Stop()
			}
		case <-status.C:
			d.show(ctx)
			d.chaos(ctx, time.Since(began))
			if d.cfg.For > 0 && time.Since(began) >= d.cfg.For && d.kills == d.cfg.Kills {
				return nil
			}
		}
	}
}

// lookForRows counts what has landed and notes when the first row is there.
func (d *demo) lookForRows(ctx context.Context) uint64 {
	n, err := d.tables.landed(ctx)
	if err != nil {
		return 0 // the table may not be there yet
	}
	if n > 0 && d.firstRow == 0 {
		d.firstRow = time.Since(d.began)
		d.say.line("first rows after %.1f s", d.firstRow.Seconds())
	}
	return n
}

// chaos kills the pipeline when it is time to, in front of the user's eyes, and
// never before the one killed last is back.
func (d *demo) chaos(ctx context.Context, passed time.Duration) {
	if d.kills >= d.cfg.Kills || d.pipeline.restarting() {
		return
	}
	span := d.cfg.For
	if span == 0 {
		span = chaosSpan
	}
	if passed < span*time.Duration(d.kills+1)/time.Duration(d.cfg.Kills+1) {
		return
	}
	p := d.group.Process(childPipeline)
	if p == nil || time.Since(time.Unix(0, d.pipeline.born.Load())) < minLife {
		return
	}
	_ = d.get(ctx, d.pipeline.address()+"/status", &d.lastSeen) // its last word; the one before will do
	d.kills++
	d.pipeline.killed.Add(1)
	d.group.Crash(childPipeline)
	d.fetched += d.lastSeen.BytesFetched
	d.lastSeen = pipelineStatus{}
	d.say.line("chaos %d of %d: pipeline %d killed with SIGKILL, starting it again", d.kills, d.cfg.Kills, p.Pid())
}

// restarting says that a pipeline was killed and the next one is not up yet.
func (p *pipelineChild) restarting() bool { return p.killed.Load() >= p.lives.Load() }

// show prints one status line.
func (d *demo) show(ctx context.Context) {
	var e EstateStatus
	if err := d.get(ctx, d.estateURL+"/status", &e); err != nil {
		return
	}
	if d.pipeline.restarting() || d.get(ctx, d.pipeline.address()+"/status", &d.lastSeen) != nil {
		return
	}
	// The tables, not the pipeline, say what has landed: pipelines are killed here.
	landed, err := d.tables.landed(ctx)
	quarantined, err2 := d.tables.quarantined(ctx)
	if err != nil || err2 != nil {
		return
	}
	d.seePeak()
	d.say.status(statusOf(time.Now(), e, d.lastSeen, landed, quarantined))
}

// seePeak notes the highest resident memory of the pipeline's process.
func (d *demo) seePeak() {
	if p := d.group.Process(childPipeline); p != nil {
		d.peakRSS = max(d.peakRSS, residentPeak(p.Pid()))
	}
}

// statusOf makes the line out of what the parts say.
func statusOf(now time.Time, e EstateStatus, p pipelineStatus, landed, quarantined uint64) sample {
	s := sample{at: now, blobs: e.Traffic.Appends, tuples: landed, quarantined: quarantined}
	newest := e.Traffic.Position
	s.mode = "replaying " + newest.UTC().Format("15:04")
	if e.Traffic.Live {
		newest, s.mode = now, "live"
	}
	s.watermark, s.lag = "-", "-"
	if p.Watermark > 0 {
		w := time.UnixMilli(p.Watermark).UTC()
		s.watermark = w.Format("15:04:05")
		s.lag = fmt.Sprintf("%.0f s", max(0, newest.Sub(w).Seconds()))
	}
	s.rest = fmt.Sprintf("landed %s of %s", digits.Thousands(landed), digits.Thousands(e.Traffic.Tuples))
	return s
}
