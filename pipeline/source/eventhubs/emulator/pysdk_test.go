package emulator_test

import (
	"testing"

	"github.com/millrace/millrace/pipeline/pipelinetest"
)

// TestPythonSDK lets the official Python SDK judge. Its AMQP code shares nothing
// with the Go SDK's.
func TestPythonSDK(t *testing.T) {
	t.Parallel()
	python := pipelinetest.RequirePart(t, "MILLRACE_PYTHON")
	judge(t, []string{"properties", "positions", "latest", "keys", "large", "owner level", "refusals"}, python, "testdata/judge.py")
}
