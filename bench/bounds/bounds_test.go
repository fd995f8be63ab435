package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// The short form of `make cardinality`. Other programs may be at work here, so that
// speed is not judged.
func TestFloodOfKeys(t *testing.T) {
	var progress bytes.Buffer
	got, err := cardinality(t.Context(), 200_000, &progress)
	if err != nil {
		t.Fatal(err)
	}
	got.Throughput = 1
	for _, fault := range got.missed() {
		t.Errorf("%s\n%s", fault, &progress)
	}
	if got.Keys < 200_000 || got.Overflow == 0 {
		t.Errorf("%+v: the test tests nothing", got)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"nothing"}, {"-keys", "x"}} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), args, &stdout, &stderr); code != 2 || stdout.Len() > 0 || stderr.Len() == 0 {
			t.Errorf("bounds %q ends with %d, says %q and %q", args, code, &stdout, &stderr)
		}
	}
}

// What is missed is said, and is the exit code.
func TestMissedLimits(t *testing.T) {
	bad := cardinalityResult{RSSMiB: 2000, Recall: 0.98, BytesTop: 0.5, Throughput: 0.4}
	if got := bad.missed(); len(got) != 6 {
		t.Errorf("%d faults of 6: %q", len(got), got)
	}
	worse := listingResult{GrowthMiB: 65, Blobs: 10, Announced: 9}
	if got := worse.missed(); len(got) != 2 {
		t.Errorf("%d faults of 2: %q", len(got), got)
	}
}

// The short form of `make listing`.
func TestListingOfManyBlobs(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"-blobs", "60000", "listing"}, &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	var got listingResult
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &got); err != nil {
		t.Fatal(err)
	}
	if got.Announced != 60_000 || got.Pages < 12 {
		t.Errorf("%+v, want 60,000 announced out of 12 pages at least", got)
	}
}
