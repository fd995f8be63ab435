package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/cmd/internal/assembly"
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/pipeline/pipelinetest"
)

// What people type stays a value: no argument of a command that asks ClickHouse ends
// a literal, begins a statement, or reads what it does not name.
func TestHostileArgumentsStayValues(t *testing.T) {
	s := newQuarantineSite(t)
	hour := time.Now().UTC().Truncate(time.Hour)
	path := "flowLogResourceID=/S_RG/NW_LOG/" + hour.Format("y=2006/m=01/d=02/h=15/m=00") + "/macAddress=00000000000A/PT1H.json"
	s.upload(path, `{"records":[{"category":"FlowLogFlowEvent","flowLogVersion":4,"macAddress":"00000000000A","flowRecords":{"flows":[{"aclID":"a","flowGroups":[{"rule":"r","flowTuples":["`+
		fmt.Sprint(hour.UnixMilli())+`,10.0.0.1,10.1.0.1,5001,443,6,O,E,NX,10,20,30,40","bad"]}]}]}}]}`)
	s.pipeline().Close()
	cfg, err := config.Load(s.config)
	if err != nil {
		t.Fatal(err)
	}
	sink, err := assembly.OpenSink(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	count := func() string {
		t.Helper()
		out, err := sink.Exec(t.Context(), "SELECT (SELECT count() FROM flows), (SELECT count() FROM quarantine), (SELECT count() FROM system.tables WHERE database = currentDatabase()) FORMAT TSV")
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	before := count()
	start := hour.Format(time.RFC3339)
	commands := [][]string{
		{"quarantine", "list", "--reason", "P"},
		{"quarantine", "list", "--blob", "P"},
		{"quarantine", "replay", "--dry-run", "--blob", "P"},
		{"evidence", "--blob", "P", "--generation", "0", "--record", "12"},
		{"evidence", "P@0:12:0"},
		{"evidence", "--window", "P", "--start", start, "--key", "mac=00000000000A"},
		{"evidence", "--window", "traffic_1m", "--start", start, "--key", "P=x", "--key", "direction=outbound"},
		{"evidence", "--window", "traffic_1m", "--start", start, "--key", "mac=P", "--key", "direction=outbound", "--key", "action=allowed", "--key", "protocol=6"},
	}
	for i, payload := range pipelinetest.HostileSQL() {
		if strings.Contains(payload, "\x00") {
			continue // no argument of a program holds NUL
		}
		for j, command := range commands {
			if (i+j)%3 != 0 && j > 1 { // every command has more than 30 of them, the first two all
				continue
			}
			args := make([]string, len(command))
			for k, a := range command {
				args[k] = strings.ReplaceAll(a, "P", payload)
			}
			out, err := s.millrace(args[0], args[1:]...)
			told := out + fmt.Sprint(err)
			for _, bad := range []string{"SYNTAX_ERROR", "Syntax error", "UNKNOWN_IDENTIFIER", "UNKNOWN_TABLE", "UNKNOWN_FUNCTION", "Code: ", "VERIFIED"} {
				if strings.Contains(told, bad) {
					t.Errorf("%q: %s", args, told)
					break
				}
			}
		}
	}
	if after := count(); after != before {
		t.Errorf("rows and tables are %q, were %q", after, before)
	}
	if _, err := os.Stat("/tmp/millrace-injected"); err == nil {
		t.Error("a file was written")
	}
}
