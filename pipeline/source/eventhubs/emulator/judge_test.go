package emulator_test

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator"
)

// judge runs a program that judges an emulator of its own: it is given the
// connection string and one with a wrong key, prints "ok NAME" for each check that
// holds, and ends with an error at the first that does not.
func judge(t *testing.T, checks []string, program string, args ...string) {
	t.Helper()
	s := start(t, func(c *emulator.Config) { c.Key = "c2VjcmV0" })
	conn := s.ConnectionString("logs")
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append(args, conn, strings.Replace(conn, "c2VjcmV0", "d3Jvbmc=", 1))...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	for _, name := range checks {
		if !strings.Contains(string(out), "ok "+name+"\n") {
			t.Errorf("check %q did not run:\n%s", name, out)
		}
	}
}
