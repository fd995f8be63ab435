package clickhouse

import (
	"testing"

	"github.com/millrace/millrace/sinks/sinktest"
)

func TestConformance(t *testing.T) {
	eachWire(t, func(t *testing.T, wire string) {
		sinktest.Run(t, func(t *testing.T) sinktest.Target {
			return newTarget(t, readyOver(t, wire), server(t).HTTPURL)
		})
	})
}
