package telemetry

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// linked keeps together what links tie together. A read is caused by notifications
// of several traces and a commit by several reads, so neither has a parent; decided
// by chance for each, one in a hundred of each would be kept and hardly ever two of
// one blob. A span without a parent is sampled when one that it links to is, and by
// the root's sampler when it links to none.
type linked struct{ sdktrace.Sampler }

func (s linked) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if len(p.Links) == 0 || trace.SpanContextFromContext(p.ParentContext).IsValid() {
		return s.Sampler.ShouldSample(p)
	}
	for _, l := range p.Links {
		if l.SpanContext.IsSampled() {
			return sdktrace.AlwaysSample().ShouldSample(p)
		}
	}
	return sdktrace.NeverSample().ShouldSample(p)
}

func (s linked) Description() string { return "Linked{" + s.Sampler.Description() + "}" }

// newSampler reads OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG. The SDK would do
// it by itself, but gives nothing that could be wrapped.
func newSampler() (sdktrace.Sampler, error) {
	const name, argument = "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"
	ratio := 1.0
	kind := strings.ToLower(strings.TrimSpace(os.Getenv(name)))
	if text := strings.TrimSpace(os.Getenv(argument)); text != "" && strings.HasSuffix(kind, "traceidratio") {
		var err error
		if ratio, err = strconv.ParseFloat(text, 64); err != nil || !(ratio >= 0 && ratio <= 1) {
			return nil, fmt.Errorf("environment variable %s: %q: want 0 to 1, such as 0.01", argument, text)
		}
	}
	switch kind {
	case "", "parentbased_always_on":
		return linked{sdktrace.ParentBased(sdktrace.AlwaysSample())}, nil
	case "always_on":
		return linked{sdktrace.AlwaysSample()}, nil
	case "always_off":
		return linked{sdktrace.NeverSample()}, nil
	case "parentbased_always_off":
		return linked{sdktrace.ParentBased(sdktrace.NeverSample())}, nil
	case "traceidratio":
		return linked{sdktrace.TraceIDRatioBased(ratio)}, nil
	case "parentbased_traceidratio":
		return linked{sdktrace.ParentBased(sdktrace.TraceIDRatioBased(ratio))}, nil
	}
	return nil, fmt.Errorf("environment variable %s: %q: want always_on, always_off, traceidratio, or one of these behind parentbased_", name, kind)
}
