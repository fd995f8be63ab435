package config

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace/millrace/pipeline/pipelinetest"
	"github.com/millrace/millrace/schemas"
)

// Whatever becomes a name in SQL is a plain word, or a fault of its key at once.
func TestHostileIdentifiers(t *testing.T) {
	const whole = `
state: /tmp/state
start: now-1h
accounts:
  - {name: a, endpoint: "https://a.blob.core.windows.net", containers: [logs], key: {env: K}}
clickhouse: {url: "http://127.0.0.1:8123", database: %s}
windows:
  - {name: %s, size: 1m, group_by: [%s], sums: [%s], distinct: [%s]}
`
	plain := []any{"millrace", "traffic", "mac", "bytes_sent", "src_ip"}
	keys := []string{"clickhouse.database", "windows[0].name", "windows[0].group_by[0]", "windows[0].sums[0]", "windows[0].distinct[0]"}
	if _, err := Parse([]byte(fmt.Sprintf(whole, plain...))); err != nil {
		t.Fatal(err)
	}
	payloads := pipelinetest.HostileSQL()
	if len(payloads) < 100 {
		t.Fatalf("%d payloads, want 100", len(payloads))
	}
	for _, payload := range payloads {
		quoted, err := json.Marshal(strings.ToValidUTF8(payload, "\ufffd")) // a text of JSON is one of YAML
		if err != nil {
			t.Fatal(err)
		}
		for i, key := range keys {
			values := append([]any{}, plain...)
			values[i] = string(quoted)
			_, err := Parse([]byte(fmt.Sprintf(whole, values...)))
			if err == nil && schemas.CheckIdentifier("name", payload) != nil {
				t.Errorf("%s: %.60q is accepted", key, payload)
			}
		}
	}
}
