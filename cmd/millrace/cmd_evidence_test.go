package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/cmd/internal/evidence"
)

// evidence runs the command and gives what it printed, and its exit code.
func (s *quarantineSite) evidence(args ...string) (text string, code int) {
	s.t.Helper()
	text, err := s.millrace("evidence", args...)
	var exit *exitError
	switch {
	case errors.As(err, &exit):
		return text + exit.Error(), exit.code
	case err != nil:
		return text + err.Error(), exitFailed
	}
	return text, 0
}

func TestEvidenceCommand(t *testing.T) {
	s := newQuarantineSite(t)
	hour := time.Now().UTC().Truncate(time.Hour)
	const record = `{"time":"x","flowLogVersion":4,"macAddress":"00000000000A","category":"FlowLogFlowEvent","flowLogResourceID":"/L","targetResourceID":"/T",` +
		`"flowRecords":{"flows":[{"aclID":"a","flowGroups":[{"rule":"r","flowTuples":["%d,10.0.0.1,fd00::2,5000,443,6,O,E,NX,1,2,3,4","%[1]d,10.0.0.1,10.1.0.1,5001,443,6,O,E,NX,10,20,30,40"]}]}]}}`
	path := "flowLogResourceID=/S_RG/NW_LOG/" + hour.Format("y=2006/m=01/d=02/h=15/m=00") + "/macAddress=00000000000A/PT1H.json"
	text := fmt.Sprintf(`{"records":[`+record+`]}`, hour.UnixMilli())
	s.upload(path, text)
	s.pipeline().Close()
	cfg, err := config.Load(s.config)
	if err != nil {
		t.Fatal(err)
	}
	blob := cfg.Accounts[0].Name + "/logs/" + path

	out, code := s.evidence(blob + "@0:12:0")
	contains(t, out, "VERIFIED  "+blob+"@0:12:0", "10.0.0.1:5000 to fd00::2:443", "5000,443,6,O,E,NX,1,2,3,4", fmt.Sprintf("bytes 12 to %d of the blob", len(text)-3), "as now", "all 26 as the bytes say")
	if code != 0 {
		t.Errorf("exit code %d of a verified row", code)
	}
	out, code = s.evidence("--blob", blob, "--generation", "0", "--record", "12", "--ordinal", "1", "-o", "json")
	var f evidence.Finding
	if err := json.Unmarshal([]byte(out), &f); err != nil || code != 0 || f.Outcome != evidence.Verified || f.Row["bytes_received"] != "40" || f.Record.Length != int64(len(text)-14) {
		t.Errorf("exit code %d, %v, %+v\n%s", code, err, f, out)
	}
	out, code = s.evidence("--batch", fmt.Sprint(f.Batch))
	contains(t, out, "2 of 2 rows read: 2 verified")
	if code != 0 {
		t.Errorf("exit code %d of a commit:\n%s", code, out)
	}
	key := []string{"--window", "traffic_1m", "--start", hour.Format(time.RFC3339), "--key", "mac=00000000000A", "--key", "direction=outbound", "--key", "action=allowed", "--key", "protocol=6"}
	out, code = s.evidence(append(key, "--limit", "1")...)
	contains(t, out, "VERIFIED  windows_traffic_1m of "+hour.Format(time.RFC3339), "rows 2, bytes_received 44, bytes_sent 22, packets_received 33, packets_sent 11",
		"1 of 2 rows read: 1 verified; --limit reads more")
	if code != 0 {
		t.Errorf("exit code %d of a window:\n%s", code, out)
	}
	out, code = s.evidence(blob + "@0:12:7")
	contains(t, out, "UNKNOWN", "has ordinals 0 to 1")
	if code != exitFailed {
		t.Errorf("exit code %d of an unknown row", code)
	}

	for want, args := range map[string][]string{
		"--key protocol=... is missing":                        key[:len(key)-2],
		`--window "nothing": the configuration has traffic_1m`: {"--window", "nothing", "--start", "x"},
		`--start "x": want the window's start`:                 {"--window", "traffic_1m", "--start", "x"},
		"windows of 1m0s begin at 2026-01-02T15:04:00Z":        {"--window", "traffic_1m", "--start", "2026-01-02T15:04:05Z"},
		`--key "x=1": want column=value`:                       {"--window", "traffic_1m", "--start", "2026-01-02T15:04:00Z", "--key", "x=1"},
		`--key protocol: "tcp", want a number of 8 bits`:       append(append([]string{}, key[:len(key)-1]...), "protocol=tcp"),
		`--key dst_ip: "here", want an address`: {
			"--window", "services_1m", "--start", "2026-01-02T15:04:00Z", "--key", "dst_ip=here",
		},
	} {
		out, code := s.evidence(args...)
		if !strings.Contains(out, want) || code != exitUsage {
			t.Errorf("%v: exit code %d, %q, want %q", args, code, out, want)
		}
	}
}
