package emulator_test

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/millrace/millrace/pipeline/pipelinetest"
)

// TestJavaSDK lets the official Java SDK judge. Its AMQP code (proton-j) shares
// nothing with that of the others. One start of Java serves all checks: it takes
// longer than most of them.
func TestJavaSDK(t *testing.T) {
	t.Parallel()
	jars := filepath.Join(filepath.Dir(pipelinetest.RequirePart(t, "MILLRACE_JAVA_SDK")), "*")
	classes := t.TempDir()
	compile := exec.CommandContext(t.Context(), "javac", "-encoding", "UTF-8", "--release", "17", "-cp", jars, "-d", classes, "testdata/Judge.java")
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("javac: %v\n%s", err, out)
	}
	judge(t, []string{"properties", "positions", "latest", "bodies", "keys", "large", "owner level", "refusals", "renewal", "clean close"},
		"java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m", "-cp", classes+string(filepath.ListSeparator)+jars, "Judge")
}
