package assembly_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/cmd/internal/jobtest"
)

// The published samples are years old, and a running pipeline reads nothing older
// than 50 hours: it has forgotten the positions by then. So the test moves every
// sample by a whole number of hours, to the hour before this one, and writes it to
// a blob of that hour. Nothing but the times changes, neither their length nor
// their minutes and seconds; what comes out of the tables is moved back before it
// is compared.

const samplesDir = "../../../pipeline/decode/testdata/samples"

// sampleBlob is one sample as Azure would have written it.
type sampleBlob struct {
	name      string
	container string
	path      string
	records   []string // whole, as they stand in the sample
	shift     time.Duration
	rows      int // in the sample, counted by hand
}

// blocks are what stands in the blob: a header, one block for each append, a
// footer.
func (s sampleBlob) blocks() (header string, appends []string, footer string) {
	for i, r := range s.records {
		if i > 0 {
			r = "," + r
		}
		appends = append(appends, r)
	}
	return `{"records":[`, appends, `]}`
}

// content is the finished blob.
func (s sampleBlob) content() string {
	header, appends, footer := s.blocks()
	return header + strings.Join(appends, "") + footer
}

// sampleBlobs reads all samples and moves them to the hour.
func sampleBlobs(t *testing.T, hour time.Time) []sampleBlob {
	t.Helper()
	var out []sampleBlob
	for _, c := range []struct {
		file, container string
		records, rows   int
		wrap            string // for a sample of bare tuples: the record around them
	}{
		{"vnet-docs-v4-record.json", jobtest.VNetLogs, 1, 19, ""},
		{"vnet-docs-v4-record.compact.json", jobtest.VNetLogs, 1, 19, ""},
		{"vnet-docs-bandwidth-tuples.txt", jobtest.VNetLogs, 1, 3, `{"time":"2024-02-26T20:10:30.0000000Z","flowLogVersion":4,"macAddress":"0022481C2F3E","category":"FlowLogFlowEvent",` +
			`"flowRecords":{"flows":[{"aclID":"a","flowGroups":[{"rule":"UserRule_r","flowTuples":[TUPLES]}]}]}}`},
		{"nsg-docs-v2.json", jobtest.NSGLogs, 2, 11, ""},
		{"nsg-docs-v1-nested-records.json", jobtest.NSGLogs, 3, 21, ""},
		{"nsg-connector-v1-small.json", jobtest.NSGLogs, 3, 38, ""},
		{"nsg-connector-v1-large.json", jobtest.NSGLogs, 24, 1187, ""},
		{"nsg-connector-appended-region.txt", jobtest.NSGLogs, 1, 85, ""},
		{"nsg-connector-v2-trailing-comma.json", jobtest.NSGLogs, 1, 8, ""},
		{"nsg-docs-bandwidth-tuples.txt", jobtest.NSGLogs, 1, 3, `{"time":"2024-02-26T20:10:30.0000000Z","systemId":"s","category":"NetworkSecurityGroupFlowEvent","resourceId":"/r",` +
			`"properties":{"Version":2,"flows":[{"rule":"UserRule_r","flows":[{"mac":"0022481C2F3E","flowTuples":[TUPLES]}]}]}}`},
	} {
		data, err := os.ReadFile(filepath.Join(samplesDir, c.file))
		if err != nil {
			t.Fatal(err)
		}
		if c.wrap != "" {
			data = []byte(strings.Replace(c.wrap, "TUPLES", `"`+strings.Join(strings.Fields(string(data)), `","`)+`"`, 1))
		}
		text, shift := moveTo(t, string(data), hour)
		s := sampleBlob{name: c.file, container: c.container, shift: shift, rows: c.rows, records: cutRecords(text)}
		if len(s.records) != c.records {
			t.Fatalf("%s: %d records, want %d", c.file, len(s.records), c.records)
		}
		s.path = fmt.Sprintf("resourceId=/SUBSCRIPTIONS/S/RESOURCEGROUPS/G/PROVIDERS/P/%s/%s/macAddress=0022481C2F3E/PT1H.json",
			strings.ToUpper(strings.TrimSuffix(c.file, filepath.Ext(c.file))), hour.UTC().Format("y=2006/m=01/d=02/h=15/m=00"))
		out = append(out, s)
	}
	return out
}

var (
	recordTime = regexp.MustCompile(`"time"\s*:\s*"([^"]+)"`)
	tupleTime  = regexp.MustCompile(`"(\d{10}|\d{13}),`)
)

const recordLayout = "2006-01-02T15:04:05.0000000Z"

// moveTo moves the times of records and tuples by as many hours as there are
// between the first record's and the wanted one.
func moveTo(t *testing.T, text string, hour time.Time) (moved string, shift time.Duration) {
	t.Helper()
	parse := func(s string) time.Time {
		at, err := time.Parse(recordLayout, s)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	first := recordTime.FindStringSubmatch(text)
	shift = hour.Sub(parse(first[1]).Truncate(time.Hour))
	text = recordTime.ReplaceAllStringFunc(text, func(m string) string {
		old := recordTime.FindStringSubmatch(m)[1]
		return strings.Replace(m, old, parse(old).Add(shift).Format(recordLayout), 1)
	})
	text = tupleTime.ReplaceAllStringFunc(text, func(m string) string {
		digits := m[1 : len(m)-1]
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		by := int64(shift / time.Millisecond)
		if len(digits) == 10 {
			by = int64(shift / time.Second)
		}
		return fmt.Sprintf(`"%d,`, n+by)
	})
	return text, shift
}

// cutRecords gives the outermost objects of the records array, or of a text that
// has none around them, each as it stands there. It counts braces outside of
// strings: the samples are not all valid JSON.
func cutRecords(text string) []string {
	if i := strings.Index(text, `"records"`); i >= 0 && strings.TrimSpace(text[:i]) == "{" {
		text = text[i+strings.Index(text[i:], "[")+1:]
	}
	var out []string
	depth, start, quoted := 0, 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{':
			if depth == 0 {
				start = i
			}
			depth++
		case c == '}' && depth > 0:
			if depth--; depth == 0 {
				out = append(out, text[start:i+1])
			}
		}
	}
	return out
}

// The samples keep everything but their times.
func TestMovedSamplesKeepTheirBytes(t *testing.T) {
	hour := time.Date(2026, 11, 23, 7, 0, 0, 0, time.UTC)
	digits := regexp.MustCompile(`[0-9]`)
	for _, s := range sampleBlobs(t, hour) {
		old, err := os.ReadFile(filepath.Join(samplesDir, s.name))
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range s.records {
			if strings.HasSuffix(s.name, "tuples.txt") {
				break // the record is the test's own
			}
			if !bytes.Contains(digits.ReplaceAll(old, []byte("0")), []byte(digits.ReplaceAllString(r, "0"))) {
				t.Errorf("%s: record %d differs by more than digits", s.name, i)
			}
		}
		if s.shift%time.Hour != 0 || s.shift <= 0 {
			t.Errorf("%s: moved by %v, want whole hours", s.name, s.shift)
		}
	}
}
