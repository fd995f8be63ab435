package blob_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/blob/blobtest"
	"github.com/millrace/millrace/pipeline/secret"
)

// list collects all pages.
func list(t *testing.T, store *blob.AzureStore, prefix, delimiter string) (blobs, folders []string, pages int) {
	t.Helper()
	for marker := ""; ; {
		next, err := store.ListPage(t.Context(), account, container, prefix, delimiter, marker,
			func(p string, size int64, etag string) {
				if size != int64(len(p)) || etag == "" {
					t.Errorf("%q has %d bytes and version %q", p, size, etag)
				}
				blobs = append(blobs, p)
			},
			func(p string) { folders = append(folders, p) })
		if err != nil {
			t.Fatal(err)
		}
		if pages++; next == "" {
			return blobs, folders, pages
		}
		marker = next
	}
}

func TestListPage(t *testing.T) {
	s := blobtest.Start(t)
	s.Create(account, container)
	store := newStore(t, s)
	if blobs, folders, pages := list(t, store, "", ""); len(blobs)+len(folders) != 0 || pages != 1 {
		t.Errorf("an empty container: %q, %q, %d pages", blobs, folders, pages)
	}
	var all []string
	for i := range 7 {
		for _, p := range []string{fmt.Sprintf("a/%d/x", i), fmt.Sprintf("a/%d/y &<ü", i), fmt.Sprintf("b%d", i)} {
			all = append(all, p)
			s.Put(pipeline.BlobID{Account: account, Container: container, Path: p}, []byte(p))
		}
	}
	slices.Sort(all)
	for _, size := range []int{0, 1, 3} {
		s.PageSize = size
		blobs, _, _ := list(t, store, "", "")
		if !slices.Equal(blobs, all) {
			t.Errorf("pages of %d: %q", size, blobs)
		}
		blobs, folders, pages := list(t, store, "a/", "/")
		if len(blobs) != 0 || len(folders) != 7 || folders[0] != "a/0/" || size == 3 && pages != 3 {
			t.Errorf("pages of %d: folders %q, blobs %q, %d pages", size, folders, blobs, pages)
		}
		if blobs, folders, _ := list(t, store, "b", "/"); len(blobs) != 7 || len(folders) != 0 {
			t.Errorf("pages of %d: folders %q, blobs %q", size, folders, blobs)
		}
	}
	for _, r := range s.Requests() {
		if r.Method != http.MethodGet || r.Op != "list" {
			t.Errorf("%+v", r)
		}
	}
}

func TestListPageRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := blobtest.New()
		dial, stop := s.Pipe()
		defer stop()
		store, err := blob.NewAzureStore([]blob.AccountConfig{{
			Name: account, Endpoint: s.Endpoint(account), SAS: secret.New(canarySAS), Dial: dial,
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		s.Create(account, container)
		s.Faults("list",
			&blobtest.Fault{Status: 503, Code: "ServerBusy", Header: http.Header{"Retry-After": {"20"}}},
			&blobtest.Fault{Status: 500}, &blobtest.Fault{Cut: true, CutAfter: 40}, &blobtest.Fault{Stall: true, CutAfter: 40})
		began := time.Now()
		if _, err := store.ListPage(t.Context(), account, container, "", "", "", nil, nil); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < 80*time.Second || took > 100*time.Second || len(s.Requests()) != 5 {
			t.Errorf("%v, %d requests", took, len(s.Requests()))
		}
		if got := store.ListStats(); got.Requests != 5 || got.Retries != 4 {
			t.Errorf("%+v", got)
		}
		for status, want := range map[int]int{403: 1, 404: 1, 302: 1, 500: 5} {
			s.Forget()
			s.SetFault(func(blobtest.Request) *blobtest.Fault { return &blobtest.Fault{Status: status} })
			_, err := store.ListPage(t.Context(), account, container, "some/prefix", "", "", nil, nil)
			if err == nil || !strings.Contains(err.Error(), account+"/"+container+"/some/prefix") || leaks(err) != "" || len(s.Requests()) != want {
				t.Errorf("%d: %v after %d requests", status, err, len(s.Requests()))
			}
			if errors.Is(err, pipeline.ErrTransient) != (status == 500) || errors.Is(err, fs.ErrNotExist) != (status == 404) {
				t.Errorf("%d: class of %v", status, err)
			}
		}
		time.Sleep(time.Minute)
	})
}
