package listing_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/blob/blobtest"
	"github.com/millrace/millrace/pipeline/source/listing"
)

// pastNames is a container of some months, with names that are near to those of flow
// logs.
func pastNames() []string {
	var names []string
	for _, at := range []string{"1999-10-31T23", "1999-12-31T22", "1999-12-31T23", "2000-01-01T00", "2000-01-01T01", "2000-02-01T00"} {
		hour, _ := time.Parse("2006-01-02T15", at)
		for i, layout := range layouts {
			names = append(names, fmt.Sprintf("%s%s/macAddress=%d/PT1H.json", layout, hour.Format("y=2006/m=01/d=02/h=15/m=00"), i))
		}
	}
	return append(names,
		layouts[0]+"y=1999/m=12/d=31/h=23/m=00/macAddress=9/PT1H.txt",
		layouts[0]+"y=1999/m=12/d=31/h=23/PT1H.json",
		layouts[0]+"y=1999/m=12/d=31/h=9/m=00/macAddress=9/PT1H.json",
		layouts[0]+"y=1999/m=13/d=31/h=09/m=00/macAddress=9/PT1H.json",
		"notes/PT1H.json", "PT1H.json")
}

// walkPeriod gives the hours in the order in which they came, with their blobs.
func walkPeriod(t *testing.T, p *listing.Period, lister listing.Lister) (hours []string, blobs map[string]int) {
	t.Helper()
	blobs = map[string]int{}
	err := p.Walk(t.Context(), lister, func(_ context.Context, hour time.Time, found []listing.Blob) error {
		at := hour.Format("06-01-02T15")
		hours = append(hours, at)
		for i, b := range found {
			blobs[at]++
			if b.Size != int64(len(b.ID.Path)) || i > 0 && b.ID.String() <= found[i-1].ID.String() {
				t.Errorf("blob %+v behind %+v", b, found[max(i-1, 0)])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return hours, blobs
}

// A container and a tree of files give the same.
func TestPeriod(t *testing.T) {
	root := t.TempDir()
	for _, name := range pastNames() {
		file := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(name), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := blob.NewDirectoryStore([]blob.DirectoryConfig{{Path: root, Account: account, Container: container}})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, began, nil)
		for _, name := range pastNames() {
			w.server.Put(pipeline.BlobID{Account: account, Container: container, Path: name}, []byte(name))
		}
		for _, lister := range []listing.Lister{w.store, tree} {
			for _, c := range []struct {
				from, to string
				hourless bool
				hours    string
			}{
				{"", "", true, "01-01-01T00 99-10-31T23 99-12-31T09 99-12-31T22 99-12-31T23 00-01-01T00 00-01-01T01 00-02-01T00"},
				{"1999-12-31T23:00:00Z", "2000-01-01T01:00:00Z", false, "99-12-31T23 00-01-01T00"},
				{"1999-12-31T23:00:00Z", "2000-01-01T01:00:01Z", false, "99-12-31T23 00-01-01T00 00-01-01T01"},
				{"1999-11-01T00:00:00Z", "1999-12-31T00:00:00Z", false, ""},
				{"2000-01-02T00:00:00Z", "", false, "00-02-01T00"},
			} {
				p := &listing.Period{Containers: []listing.Container{{Account: account, Container: container}}, Hourless: c.hourless}
				p.From, _ = time.Parse(time.RFC3339, c.from)
				p.To, _ = time.Parse(time.RFC3339, c.to)
				hours, blobs := walkPeriod(t, p, lister)
				if diff := gocmp.Diff(c.hours, strings.Join(hours, " ")); diff != "" {
					t.Errorf("%T, %+v: %s", lister, c, diff)
				}
				few := map[string]int{"99-12-31T09": 1, "01-01-01T00": 2}
				for at, n := range blobs {
					if want := cmp.Or(few[at], len(layouts)); n != want {
						t.Errorf("%T: %d blobs of hour %s, want %d", lister, n, at, want)
					}
				}
				if strange := p.Stats().Strange; c.hourless && strange != 2 {
					t.Errorf("%T: %d strange names, want 2", lister, strange)
				}
			}
		}
	})
}

// What visit gives ends the walk; a container that is not there does not.
func TestPeriodEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, began, nil)
		for _, name := range pastNames() {
			w.server.Put(pipeline.BlobID{Account: account, Container: container, Path: name}, []byte(name))
		}
		p := &listing.Period{Containers: []listing.Container{{Account: account, Container: "missing"}, {Account: account, Container: container}}}
		stop, calls := errors.New("stop"), 0
		err := p.Walk(t.Context(), w.store, func(context.Context, time.Time, []listing.Blob) error {
			calls++
			return stop
		})
		if !errors.Is(err, stop) || calls != 1 {
			t.Errorf("%d calls, then %v", calls, err)
		}
		w.server.Faults("list", &blobtest.Fault{Status: 403})
		if err := p.Walk(t.Context(), w.store, nil); err == nil {
			t.Error("a store that refuses gives no error")
		}
	})
}
