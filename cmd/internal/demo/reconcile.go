package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/bench/traffic"
	"github.com/millrace/millrace/cmd/internal/digits"
	"github.com/millrace/millrace/cmd/internal/reconcile"
)

// drainPoll is how often the pipeline is looked at while it lands what is left.
const drainPoll = 100 * time.Millisecond

// reconcile ends the estate, lets the pipeline land everything, and compares what
// is in the tables with the simulator's own books.
func (d *demo) reconcile(ctx context.Context) error {
	began := time.Now()
	var figures *Figures
	if d.cfg.Limits != nil {
		f, err := d.measure(ctx)
		if err != nil {
			return fmt.Errorf("read the pipeline's metrics: %w", err)
		}
		figures = &f
	}
	d.say.line("stopping the estate; then the pipeline lands what is left and closes its windows")
	if err := d.post(ctx, d.estateURL+"/stop"); err != nil {
		return fmt.Errorf("stop the estate: %w", err)
	}
	if err := d.drainPipeline(ctx); err != nil {
		return err
	}
	seconds := time.Since(d.fed).Seconds()
	drained := time.Since(began)
	truth, err := traffic.ReadTruth(d.path(truthName))
	if err != nil {
		return err
	}
	r := newResult(truth)
	r.Figures = figures
	r.Kills, r.PipelineRSSMiB, r.FirstRowSeconds = d.kills, d.peakRSS>>20, d.firstRow.Seconds()
	r.fetch(uint64(d.fetched+d.lastSeen.BytesFetched), d.kills > 0)
	held, err := d.tables.held(ctx)
	if err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	var notes []string
	r.Verdict, notes = reconcile.Judge(truth, held)
	r.Reconciled = true
	r.Seconds, r.TuplesPerSecond = seconds, float64(r.RowsLanded)/seconds
	d.say.line("drained in %.1f s, compared in %.1f s", drained.Seconds(), (time.Since(began) - drained).Seconds())
	for _, line := range r.lines(notes) {
		d.say.line("%s", line)
	}
	if d.cfg.JSON {
		printJSON(d.cfg.Out, r)
	}
	if !r.Good() {
		return fmt.Errorf("demo: %w", ErrMismatch)
	}
	if d.cfg.Limits != nil {
		return d.cfg.Limits.check(&r)
	}
	return nil
}

// drainPipeline asks the pipeline to land everything and end. One that was killed
// on purpose comes back first: what it left has to be finished.
func (d *demo) drainPipeline(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, drainTimeout, fmt.Errorf("the pipeline did not land what was left within %v: see %s", drainTimeout, d.path("logs", "pipeline.log")))
	defer cancel()
	if err := d.waitForPipeline(ctx); err != nil {
		return err
	}
	p := d.group.Process(childPipeline)
	if p == nil {
		return errors.New("the pipeline ended before it could land what was left")
	}
	done := make(chan error, 1)
	go func() { done <- d.group.StopOne(ctx, childPipeline) }()
	ticker := time.NewTicker(drainPoll)
	defer ticker.Stop()
	for {
		select {
		case err := <-done:
			if cause := context.Cause(ctx); err != nil && cause != nil {
				return cause
			}
			if err = errors.Join(err, p.Err()); err != nil {
				return d.explain(p.ExitError())
			}
			return nil
		case <-ticker.C:
			// The last answer before the end has the final counts.
			_ = d.get(ctx, d.pipeline.address()+"/status", &d.lastSeen)
			d.peakRSS = max(d.peakRSS, residentPeak(p.Pid()))
			n := d.lookForRows(ctx)
			d.say.progress(fmt.Sprintf("landing what is left: %s rows so far", digits.Thousands(n)))
		}
	}
}

// waitForPipeline returns when no restart is under way.
func (d *demo) waitForPipeline(ctx context.Context) error {
	ticker := time.NewTicker(drainPoll)
	defer ticker.Stop()
	for d.pipeline.restarting() || d.group.Process(childPipeline) == nil {
		select {
		case err := <-d.group.Failed():
			return d.explain(err)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
	return nil
}
