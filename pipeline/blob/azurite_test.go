package blob_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"

	"github.com/millrace/millrace/deploy/local/localtest"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/blob/blobtest"
	"github.com/millrace/millrace/pipeline/secret"
)

// writer writes a flow log as the service does: a header block, a footer block,
// and with each minute a block before the footer.
type writer struct {
	t      *testing.T
	client *blockblob.Client
	blocks []string
}

func (w *writer) stage(data string) string {
	w.t.Helper()
	random := make([]byte, 16)
	_, _ = rand.Read(random)
	name := base64.StdEncoding.EncodeToString([]byte(strings.ToUpper(hex.EncodeToString(random))))
	if _, err := w.client.StageBlock(w.t.Context(), name, streaming.NopCloser(strings.NewReader(data)), nil); err != nil {
		w.t.Fatal(err)
	}
	return name
}

func (w *writer) append(record string) {
	w.t.Helper()
	if w.blocks == nil {
		w.blocks = []string{w.stage(blobtest.Header), w.stage(blobtest.Footer)}
	}
	if len(w.blocks) > 2 {
		record = "," + record
	}
	w.blocks = slices.Insert(w.blocks, len(w.blocks)-1, w.stage(record))
	if _, err := w.client.CommitBlockList(w.t.Context(), w.blocks, nil); err != nil {
		w.t.Fatal(err)
	}
}

func azurite(t *testing.T) (*service.Client, *blob.AzureStore, string) {
	endpoint, name, key := localtest.StartAzurite(t)
	cred, err := service.NewSharedKeyCredential(name, key)
	if err != nil {
		t.Fatal(err)
	}
	client, err := service.NewClientWithSharedKeyCredential(endpoint, cred, nil)
	if err != nil {
		t.Fatal(err)
	}
	store, err := blob.NewAzureStore([]blob.AccountConfig{{Name: name, Endpoint: endpoint, SharedKey: secret.New(key)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return client, store, name
}

func TestAgainstAzurite(t *testing.T) {
	client, store, name := azurite(t)
	if _, err := client.CreateContainer(t.Context(), container, nil); err != nil {
		t.Fatal(err)
	}
	blobID := pipeline.BlobID{Account: name, Container: container, Path: path}
	w := &writer{t: t, client: client.NewContainerClient(container).NewBlockBlobClient(path)}
	reader := newReader(t, quick(), store)
	f := &follower{t: t, reader: reader, id: blobID}

	if out, err := f.read(-1); err != nil || out != blob.Gone {
		t.Errorf("before the first block: %v, %v", out, err)
	}
	r := mathrand.New(mathrand.NewPCG(1, 2))
	for n := range 60 {
		w.append(record(r, n, 3000))
		if out, err := f.read(-1); err != nil || out != blob.Read {
			t.Fatalf("append %d: %v, %v", n, out, err)
		}
	}
	data := download(t, w.client)
	f.want(data)
	stats := reader.Stats()
	ratio := float64(stats.Bytes) / float64(len(data))
	t.Logf("60 appends of 3 KB: %d bytes in the blob, %d fetched: %.4f", len(data), stats.Bytes, ratio)
	if ratio > 1.05 || stats.Requests != 61 || stats.Retries != 0 {
		t.Errorf("ratio %.4f, %+v", ratio, stats)
	}
	if out, err := f.read(-1); err != nil || out != blob.NothingNew {
		t.Errorf("nothing appended: %v, %v", out, err)
	}
	if got, err := reader.ReadRange(t.Context(), blobID, 100, 5000); err != nil || !bytes.Equal(got, data[100:5100]) {
		t.Errorf("range: %d bytes, %v", len(got), err)
	}
	azuriteConditions(t, store, blobID, w)
	azuriteList(t, store, client, name, int64(len(download(t, w.client))))

	if _, err := w.client.UploadBuffer(t.Context(), []byte(blobtest.Header+record(r, 99, 100_000)+blobtest.Footer), nil); err != nil {
		t.Fatal(err)
	}
	if out, err := f.read(-1); err != nil || out != blob.Rewritten {
		t.Errorf("written anew: %v, %v", out, err)
	}
	if out, err := f.read(-1); err != nil || out != blob.Read || f.pos.Generation != 1 {
		t.Errorf("next generation: %v, %v", out, err)
	}
	f.want(download(t, w.client))
	if _, err := w.client.Delete(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if out, err := f.read(-1); err != nil || out != blob.Gone {
		t.Errorf("deleted: %v, %v", out, err)
	}
}

// azuriteConditions: a version that is no longer there is KindChanged.
func azuriteConditions(t *testing.T, store *blob.AzureStore, blobID pipeline.BlobID, w *writer) {
	t.Helper()
	resp, err := store.Get(t.Context(), blobID, 3, 10, "")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.Offset != 3 || resp.Length != 10 || resp.Total < 1000 || resp.ETag == "" {
		t.Errorf("%+v", resp)
	}
	again, err := store.Get(t.Context(), blobID, 3, 10, resp.ETag)
	if err != nil {
		t.Fatal(err)
	}
	_ = again.Body.Close()
	w.append(`{"a":{}}`)
	_, err = store.Get(t.Context(), blobID, 3, 10, resp.ETag)
	var e *blob.Error
	if !errors.As(err, &e) || e.Kind != blob.KindChanged || e.Status != 412 {
		t.Errorf("a version that has passed: %v", err)
	}
}

func azuriteList(t *testing.T, store *blob.AzureStore, client *service.Client, name string, size int64) {
	t.Helper()
	for i := range 3 {
		other := client.NewContainerClient(container).NewBlockBlobClient(fmt.Sprintf("other/%d ü+&.json", i))
		if _, err := other.UploadBuffer(t.Context(), []byte("x"), nil); err != nil {
			t.Fatal(err)
		}
	}
	var folders, blobs []string
	next, err := store.ListPage(t.Context(), name, container, "", "/", "", nil, func(p string) { folders = append(folders, p) })
	if err != nil || next != "" || !slices.Equal(folders, []string{"flowLogResourceID=/", "other/"}) {
		t.Errorf("folders %q, next %q, %v", folders, next, err)
	}
	next, err = store.ListPage(t.Context(), name, container, "flowLog", "", "", func(p string, n int64, etag string) {
		blobs = append(blobs, p)
		if n != size || etag == "" {
			t.Errorf("%q has %d bytes and version %q, want %d", p, n, etag, size)
		}
	}, nil)
	if err != nil || next != "" || !slices.Equal(blobs, []string{path}) {
		t.Errorf("blobs %q, next %q, %v", blobs, next, err)
	}
	_, err = store.ListPage(t.Context(), name, "no-such-container", "", "", "", nil, nil)
	var e *blob.Error
	if !errors.As(err, &e) || e.Kind != blob.KindMissing {
		t.Errorf("a container that is not there: %v", err)
	}
}

func download(t *testing.T, client *blockblob.Client) []byte {
	t.Helper()
	resp, err := client.DownloadStream(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
