package traffic

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/deploy/local/localtest"
)

// TestSumsSQL holds that a database computes the same sums.
func TestSumsSQL(t *testing.T) {
	server, _ := localtest.StartClickHouse(t)
	cfg := smallConfig()
	cfg.NSGv1Share, cfg.NSGv2Share = 0, 0
	content, truth := hourOf(t, mustEstate(t, cfg), 0, noon)
	query(t, server, `CREATE TABLE flows (time DateTime64(3, 'UTC'), src_ip IPv6, dst_ip IPv6, src_port UInt16, dst_port UInt16,
		protocol UInt8, packets_sent UInt64, bytes_sent UInt64, packets_received UInt64, bytes_received UInt64) ENGINE = Memory`, nil)
	var rows bytes.Buffer
	_, tuples := readBlob(t, content)
	v6 := 0
	for _, u := range tuples {
		if u.fault != "" {
			continue
		}
		if u.src.Is6() {
			v6++
		}
		fmt.Fprintf(&rows, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", time.UnixMilli(u.timeMS).UTC().Format("2006-01-02 15:04:05.000"),
			u.src, u.dst, u.sport, u.dport, u.protocol, u.counters[0], u.counters[1], u.counters[2], u.counters[3])
	}
	if v6 == 0 {
		t.Fatal("no IPv6 in the sample")
	}
	query(t, server, "INSERT INTO flows FORMAT TSV", &rows)
	answer := query(t, server, "SELECT "+SumsSQL+" FROM flows AS f FORMAT JSONEachRow SETTINGS output_format_json_quote_64bit_integers = 0", nil)
	var got Sums
	if err := json.Unmarshal(answer, &got); err != nil {
		t.Fatalf("%s: %v", answer, err)
	}
	if diff := cmp.Diff(truth.Totals.Sums, got); diff != "" {
		t.Errorf("truth (-), ClickHouse (+):\n%s", diff)
	}
}

func query(t *testing.T, server, sql string, body io.Reader) []byte {
	t.Helper()
	if body == nil {
		body = strings.NewReader("")
	}
	answer, err := http.Post(server+"/?query="+url.QueryEscape(sql), "text/plain", body)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%.60s: %s: %s: %v", sql, answer.Status, text, err)
	}
	return text
}
