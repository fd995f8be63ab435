package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Limits are what a run in real time is held against.
type Limits struct {
	Lag    time.Duration // 99 of 100 notifications are queryable within it
	RSSMiB int64         // of the pipeline's process
}

// Figures are what the pipeline's metrics say of a run.
type Figures struct {
	NotificationsPerSecond float64 `json:"notifications_per_second"`
	// LagP50 and LagP99 are upper bounds of the time, in seconds, from the event until
	// its rows can be queried: the end of the histogram's bucket.
	LagP50              float64 `json:"lag_p50_seconds"`
	LagP99              float64 `json:"lag_p99_seconds"`
	LedgerWritesPerHour float64 `json:"ledger_writes_per_hour"`
	InsertsPerHour      float64 `json:"parts_per_hour"` // each INSERT is one part
	CPUSeconds          float64 `json:"pipeline_cpu_seconds"`
}

// Names of the metrics, as Prometheus has them.
const (
	metricLag           = "millrace_latency_queryable_seconds"
	metricNotifications = "millrace_notifications_total"
	metricLedger        = "millrace_ledger_writes_total"
	metricInserts       = "millrace_landings_total"
	metricCPU           = "process_cpu_seconds_total"
)

// measure reads the pipeline's metrics, as a Prometheus server would. Rates count
// from the first row on: an interface first writes after a minute.
func (d *demo) measure(ctx context.Context) (Figures, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.pipeline.address()+"/metrics", nil)
	if err != nil {
		return Figures{}, err
	}
	resp, err := d.http.Do(req)
	if err != nil {
		return Figures{}, err
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		return Figures{}, err
	}
	if families[metricLag] == nil {
		return Figures{}, fmt.Errorf("the pipeline has no metric %q", metricLag)
	}
	return figuresOf(families, time.Since(d.began)-d.firstRow), nil
}

func figuresOf(families map[string]*dto.MetricFamily, passed time.Duration) Figures {
	hours, seconds := passed.Hours(), passed.Seconds()
	return Figures{
		NotificationsPerSecond: total(families[metricNotifications]) / seconds,
		LagP50:                 quantile(families[metricLag], 0.5), LagP99: quantile(families[metricLag], 0.99),
		LedgerWritesPerHour: total(families[metricLedger]) / hours, InsertsPerHour: total(families[metricInserts]) / hours,
		CPUSeconds: total(families[metricCPU]),
	}
}

// total sums a counter over its labels.
func total(f *dto.MetricFamily) (sum float64) {
	for _, m := range f.GetMetric() {
		sum += m.GetCounter().GetValue()
	}
	return sum
}

// quantile gives the upper end of the bucket that holds it; 0 without observations.
func quantile(f *dto.MetricFamily, q float64) float64 {
	at := map[float64]uint64{}
	var count uint64
	for _, m := range f.GetMetric() {
		count += m.GetHistogram().GetSampleCount()
		for _, b := range m.GetHistogram().GetBucket() {
			at[b.GetUpperBound()] += b.GetCumulativeCount()
		}
	}
	if count == 0 {
		return 0
	}
	found := 0.0
	for bound, n := range at {
		if float64(n) >= q*float64(count) && (found == 0 || bound < found) {
			found = bound
		}
	}
	return found
}

// ErrMissed: everything is in its place, but a figure is not what it should be.
var ErrMissed = errors.New("a figure was missed")

// check holds the result against the limits.
func (l *Limits) check(r *Result) error {
	var missed []string
	if r.LagP99 > l.Lag.Seconds() || r.LagP99 == 0 {
		missed = append(missed, fmt.Sprintf("the lag of 99 in 100 is up to %.3g s, want %v", r.LagP99, l.Lag))
	}
	if r.PipelineRSSMiB > l.RSSMiB {
		missed = append(missed, fmt.Sprintf("the pipeline took %d MiB, want %d", r.PipelineRSSMiB, l.RSSMiB))
	}
	if len(missed) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrMissed, strings.Join(missed, "; "))
}
