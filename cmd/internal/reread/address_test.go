package reread

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline"
)

func TestAddressComesBack(t *testing.T) {
	for text, want := range map[string]Address{
		"acc/logs/a=B/y=2026/PT1H.json@0:12":     {pipeline.BlobID{Account: "acc", Container: "logs", Path: "a=B/y=2026/PT1H.json"}, 0, 12, -1},
		"acc/logs/p@7:9223372036854775807:3":     {pipeline.BlobID{Account: "acc", Container: "logs", Path: "p"}, 7, 1<<63 - 1, 3},
		"acc/logs/p@0:1:2@3:4:5":                 {pipeline.BlobID{Account: "acc", Container: "logs", Path: "p@0:1:2"}, 3, 4, 5},
		"acc/logs/%23%20%27%25%24%0A%FF%26@0:1":  {pipeline.BlobID{Account: "acc", Container: "logs", Path: "# '%$\n\xff&"}, 0, 1, -1},
		"acc/logs/p%23replay=x-0-0-1-0-3@0:1:10": {pipeline.BlobID{Account: "acc", Container: "logs", Path: "p#replay=x-0-0-1-0-3"}, 0, 1, 10},
	} {
		got, err := ParseAddress(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
		if got.String() != text {
			t.Errorf("%s is written as %s", text, got)
		}
	}
}

func TestNoAddresses(t *testing.T) {
	for _, text := range []string{
		"", "p", "acc/logs/p", "acc/logs/p@1", "acc/logs/p@1:", "acc/logs/p@1:2:", "acc/logs@1:2", "acc/logs/p@-1:2", "acc/logs/p@4294967296:2",
		"acc/logs/p@1:9223372036854775808", "acc/logs/p@1:2:4294967296", "acc/logs/p%2@1:2", "acc/logs/p%zz@1:2", "acc/logs/p@1:2 ",
	} {
		if a, err := ParseAddress(text); err == nil {
			t.Errorf("%q was taken for %+v", text, a)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	f.Add("acc/logs/%23@0:1")
	f.Add("acc/logs/p@0:1:2")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseAddress(text)
		if err != nil {
			return
		}
		again, err := ParseAddress(a.String())
		if err != nil || again != a {
			t.Errorf("%q is %+v, then %+v (%v)", text, a, again, err)
		}
	})
}
