package emulator_test

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/pipeline/pipelinetest"
	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator"
)

// TestPythonSDK lets the official Python SDK judge. Its AMQP code shares nothing
// with the Go SDK's.
func TestPythonSDK(t *testing.T) {
	python := pipelinetest.RequirePart(t, "MILLRACE_PYTHON")
	s := start(t, func(c *emulator.Config) { c.Key = "c2VjcmV0" })
	conn := s.ConnectionString("logs")
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "testdata/judge.py", conn, strings.Replace(conn, "c2VjcmV0", "d3Jvbmc=", 1))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	for _, name := range []string{"properties", "positions", "latest", "keys", "large", "owner level", "refusals"} {
		if !strings.Contains(string(out), "ok "+name+"\n") {
			t.Errorf("check %q did not run:\n%s", name, out)
		}
	}
}
