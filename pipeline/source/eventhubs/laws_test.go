package eventhubs_test

import (
	"testing"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/pipelinetest"
	"github.com/millrace/millrace/pipeline/source/eventhubs"
	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator"
)

// lawful shows a hub and its source to the conformance suite.
type lawful struct {
	server *emulator.Server
	setup  *setup
}

func (l lawful) Open(t testing.TB) pipeline.Source {
	t.Helper()
	s, err := eventhubs.New(l.setup.cfg, l.setup.deps)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (l lawful) Send(t testing.TB, paths ...string) { publish(t, l.server, 1, paths...) }

func TestConformance(t *testing.T) {
	pipelinetest.SourceLaws(t, func(t *testing.T) pipelinetest.SourceTarget {
		s := startHub(t, nil)
		return lawful{server: s, setup: newSetup(t, s)}
	})
}
