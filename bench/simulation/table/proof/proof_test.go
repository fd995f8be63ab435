package main

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/pipeline/pipelinetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The short form of `make model`: all facts, and as many scripts as fit into a test.
func TestModelIsTheEngine(t *testing.T) {
	o := options{
		scripts: 40, group: 40, rounds: 2, workers: 4, first: 1,
		bin: pipelinetest.RequirePart(t, localtest.EnvClickHouse), lib: pipelinetest.RequirePart(t, localtest.EnvLibrary),
	}
	sum, err := prove(t.Context(), o, logger{t})
	if err != nil {
		t.Fatal(err)
	}
	if sum.Differences > 0 || sum.Scripts != o.scripts || sum.Facts != len(facts) {
		t.Errorf("%+v, want %d scripts, %d facts and no difference", sum, o.scripts, len(facts))
	}
	if sum.KillsDuring == 0 || sum.Restarts == 0 {
		t.Errorf("%+v: no kill met an INSERT", sum)
	}
}

type logger struct{ t *testing.T }

func (l logger) Write(p []byte) (int, error) {
	l.t.Helper()
	l.t.Logf("%s", p)
	return len(p), nil
}
