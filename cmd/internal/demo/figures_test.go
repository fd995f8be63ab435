package demo

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

const page = `
# TYPE millrace_latency_queryable_seconds histogram
millrace_latency_queryable_seconds_bucket{le="1"} 10
millrace_latency_queryable_seconds_bucket{le="5"} 60
millrace_latency_queryable_seconds_bucket{le="10"} 99
millrace_latency_queryable_seconds_bucket{le="+Inf"} 100
millrace_latency_queryable_seconds_sum 300
millrace_latency_queryable_seconds_count 100
# TYPE millrace_ledger_writes_total counter
millrace_ledger_writes_total{kind="manifest"} 30
millrace_ledger_writes_total{kind="head"} 6
# TYPE millrace_notifications_total counter
millrace_notifications_total 1800
`

func TestFiguresOfAPage(t *testing.T) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	want := Figures{NotificationsPerSecond: 5, LagP50: 5, LagP99: 10, LedgerWritesPerHour: 360}
	if got := figuresOf(families, 6*time.Minute); got != want {
		t.Errorf("have %+v, want %+v", got, want)
	}
	if got := quantile(nil, 0.99); got != 0 {
		t.Errorf("no observations give %v", got)
	}
}

func TestLimitsNameWhatIsMissed(t *testing.T) {
	l := Limits{Lag: 10 * time.Second, RSSMiB: 512}
	r := Result{PipelineRSSMiB: 512, Figures: &Figures{LagP99: 10}}
	if err := l.check(&r); err != nil {
		t.Error(err)
	}
	r = Result{PipelineRSSMiB: 513, Figures: &Figures{LagP99: 15}}
	if err := l.check(&r); err == nil || !strings.Contains(err.Error(), "15 s, want 10s") || !strings.Contains(err.Error(), "513 MiB, want 512") {
		t.Errorf("missed figures give %v", err)
	}
	r.Figures = &Figures{}
	if err := l.check(&r); err == nil {
		t.Error("a run that measured nothing is good")
	}
}
