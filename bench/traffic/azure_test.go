package traffic

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"

	"github.com/millrace/millrace/deploy/local/localtest"
)

func TestAzurite(t *testing.T) {
	endpoint, account, key := localtest.StartAzurite(t)
	w, err := DialAzure(endpoint, account, key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := smallConfig()
	cfg.Account, cfg.NICs = account, 6
	cfg.Duplicated, cfg.Reordered, cfg.Delayed, cfg.Dropped, cfg.Noise = 0, 0, 0, 0, 0
	cfg.Start = time.Now().Add(-time.Hour)
	cfg.Until = time.Now().Add(-5 * time.Minute)
	h := &hub{}
	s, err := New(cfg, Deps{Blobs: w, Publish: h.publish})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	truth := s.Truth()
	announced := lastEvents(t, h)
	var recount Truth
	for name, b := range truth.Blobs {
		blob := BlobName{}
		blob.Container, blob.Path, _ = strings.Cut(strings.TrimPrefix(name, account+"/"), "/")
		content := checkBlob(ctx, t, w, blob, b, announced[subjectOf(blob)])
		one := oracleTruth(t, name, content)
		recount.Merge(one)
	}
	got, want := truth.Totals, recount.Totals
	if got.Appends = 0; got != want || got.Tuples == 0 {
		t.Errorf("truth %+v, blobs hold %+v", got, want)
	}
}

// lastEvents is the last event of each subject.
func lastEvents(t *testing.T, h *hub) map[string]gridEvent {
	last := map[string]gridEvent{}
	for _, body := range h.bodies {
		e := readEvent(t, body)
		last[e.Subject] = e
	}
	return last
}

// checkBlob looks at one blob from the outside and returns its content.
func checkBlob(ctx context.Context, t *testing.T, w *AzureWriter, name BlobName, truth BlobTruth, event gridEvent) []byte {
	t.Helper()
	client := w.client(name)
	list, err := client.GetBlockList(ctx, blockblob.BlockListTypeAll, nil)
	if err != nil {
		t.Fatal(err)
	}
	blocks := list.CommittedBlocks
	last := len(blocks) - 1
	if n := uint64(len(blocks)) - 2; n != truth.Appends || len(list.UncommittedBlocks) != 0 {
		t.Errorf("%d data blocks and %d uncommitted ones, want %d and none", n, len(list.UncommittedBlocks), truth.Appends)
	}
	if *blocks[0].Size != 12 || *blocks[last].Size != 2 {
		t.Errorf("header of %d bytes, footer of %d", *blocks[0].Size, *blocks[last].Size)
	}
	for _, b := range blocks {
		id, err := base64.StdEncoding.DecodeString(*b.Name)
		if err != nil || !regexp.MustCompile(`^[0-9a-f]{32}$`).Match(id) {
			t.Errorf("block id %q", *b.Name)
		}
	}
	answer, err := client.DownloadStream(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	at := *blocks[0].Size
	for i, b := range blocks[1:last] {
		if comma := content[at] == ','; comma != (i > 0) {
			t.Errorf("data block %d begins with %q", i, content[at])
		}
		at += *b.Size
	}
	if got := *event.Data.ContentLength; got != int64(len(content)) {
		t.Errorf("the last event says %d bytes, the blob has %d", got, len(content))
	}
	if got := strings.Trim(event.Data.ETag, `"`); got != strings.Trim(string(*answer.ETag), `"`) {
		t.Errorf("the last event has eTag %q, the blob %q", got, *answer.ETag)
	}
	if *answer.ContentType != "application/octet-stream" {
		t.Errorf("content type %q", *answer.ContentType)
	}
	return content
}

// lossy loses the answers to some requests after they were carried out.
type lossy struct{ lose func(*http.Request) bool }

func (l lossy) Do(r *http.Request) (*http.Response, error) {
	answer, err := http.DefaultClient.Do(r)
	if err == nil && l.lose(r) {
		_ = answer.Body.Close()
		return nil, errors.New("connection reset")
	}
	return answer, err
}

func TestAzureLostAnswers(t *testing.T) {
	endpoint, account, key := localtest.StartAzurite(t)
	cred, err := azblob.NewSharedKeyCredential(account, key)
	if err != nil {
		t.Fatal(err)
	}
	commit := func(r *http.Request) bool {
		return r.Method == http.MethodPut && r.URL.Query().Get("comp") == "blocklist"
	}
	list := func(r *http.Request) bool {
		return r.Method == http.MethodGet && r.URL.Query().Get("comp") == "blocklist"
	}
	for name, c := range map[string]struct {
		lose  func(*http.Request) bool
		doubt bool
	}{
		"commit": {lose: commit},
		"both":   {lose: func(r *http.Request) bool { return commit(r) || list(r) }, doubt: true},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := service.NewClientWithSharedKeyCredential(endpoint, cred, &service.ClientOptions{ClientOptions: azcore.ClientOptions{
				Retry: policy.RetryOptions{MaxRetries: -1}, Transport: lossy{c.lose},
			}})
			if err != nil {
				t.Fatal(err)
			}
			w := NewAzureWriter(client)
			blob := BlobName{Container: "logs", Path: name}
			ids := []string{blockID(1, 0), blockID(1, 1)}
			if err := w.EnsureContainer(t.Context(), "logs"); err != nil {
				t.Fatal(err)
			}
			for _, id := range ids {
				if err := w.Stage(t.Context(), blob, id, []byte(id)); err != nil {
					t.Fatal(err)
				}
			}
			etag, err := w.Commit(t.Context(), blob, ids)
			if c.doubt != errors.Is(err, ErrDoubt) || c.doubt != (err != nil) || c.doubt != (etag == "") {
				t.Errorf("etag %q, error %v", etag, err)
			}
			_, err = w.Commit(t.Context(), blob, append(slices.Clone(ids), "bWlzc2luZw=="))
			if err == nil || errors.Is(err, ErrDoubt) && !c.doubt {
				t.Errorf("a list with a missing block: %v", err)
			}
		})
	}
}

// readEvent reads an event of either schema.
func readEvent(t testing.TB, body []byte) gridEvent {
	t.Helper()
	var grid []gridEvent
	if err := json.Unmarshal(body, &grid); err != nil || len(grid) != 1 {
		t.Fatalf("event %s: %v", body, err)
	}
	if grid[0].Topic == "" {
		var cloud []cloudEvent
		if err := json.Unmarshal(body, &cloud); err != nil {
			t.Fatal(err)
		}
		c := cloud[0]
		if c.SpecVersion != "1.0" {
			t.Errorf("spec version %q", c.SpecVersion)
		}
		return gridEvent{Topic: c.Source, Subject: c.Subject, EventType: c.Type, EventTime: c.Time, ID: c.ID, Data: c.Data}
	}
	return grid[0]
}
