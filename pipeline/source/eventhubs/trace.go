package eventhubs

import (
	"context"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"go.opentelemetry.io/otel/propagation"
)

// sender gives a context with the span of whoever sent the message, if it says: the
// W3C property traceparent, or Diagnostic-Id, under which Azure's older SDKs send the
// same.
func sender(ctx context.Context, e *azeventhubs.ReceivedEventData) context.Context {
	carrier := propagation.MapCarrier{}
	for property, header := range map[string]string{"Diagnostic-Id": "traceparent", "traceparent": "traceparent", "tracestate": "tracestate"} {
		if text, ok := e.Properties[property].(string); ok && (carrier[header] == "" || property == header) {
			carrier[header] = text
		}
	}
	if carrier["traceparent"] == "" {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, carrier)
}
