package clickhouse

import (
	"testing"

	"github.com/millrace/millrace/sinks/sinktest"
)

func TestConformance(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Target { return target{ready(t)} })
}
