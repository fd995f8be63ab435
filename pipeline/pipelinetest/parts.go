// Package pipelinetest holds what tests of many rooms share: finding the real
// parts they run against.
package pipelinetest

import (
	"os"
	"testing"
)

// RequirePart returns the value of the environment variable name, which tells
// where a real part (Azurite, ClickHouse, an SDK) is installed. Without it the
// test is skipped, or fails when MILLRACE_REQUIRE_PARTS=1: in CI a missing part
// is a failure.
func RequirePart(t testing.TB, name string) string {
	t.Helper()
	v := os.Getenv(name)
	if v != "" {
		return v
	}
	if os.Getenv("MILLRACE_REQUIRE_PARTS") == "1" {
		t.Fatalf("%s is not set, but parts are required: run `make test`", name)
	}
	t.Skipf("NOT RUN: %s is not set: run `make test`", name)
	return ""
}
