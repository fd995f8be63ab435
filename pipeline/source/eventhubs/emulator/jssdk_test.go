package emulator_test

import (
	"testing"

	"github.com/millrace/millrace/pipeline/pipelinetest"
)

// TestJavaScriptSDK lets the official JavaScript SDK judge. Its AMQP code (rhea)
// shares nothing with that of the others.
func TestJavaScriptSDK(t *testing.T) {
	t.Parallel()
	sdk := pipelinetest.RequirePart(t, "MILLRACE_JS_SDK")
	judge(t, []string{"properties", "positions", "latest", "bodies", "keys", "large", "owner level", "refusals", "clean close"},
		"node", "testdata/judge.js", sdk)
}
