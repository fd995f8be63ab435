package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/secret"
	"github.com/millrace/millrace/pipeline/source/listing"
)

// maxGrowthMiB is how much memory listing may take.
const maxGrowthMiB = 64

type listingResult struct {
	Blobs     int     `json:"blobs"`
	Announced int64   `json:"announced"`
	Pages     int64   `json:"pages"`
	GrowthMiB float64 `json:"rss_growth_mib"` // the service in this process included
	Seconds   float64 `json:"seconds"`
}

func (r listingResult) missed() (faults []string) {
	if r.GrowthMiB > maxGrowthMiB {
		faults = append(faults, fmt.Sprintf("rss_growth_mib %.0f, want at most %d", r.GrowthMiB, maxGrowthMiB))
	}
	if r.Announced != int64(r.Blobs) {
		faults = append(faults, fmt.Sprintf("%d of %d blobs were announced", r.Announced, r.Blobs))
	}
	return faults
}

// listNames lets the sweeper list a container of so many flow logs of the current
// hour, through the client of the blob service.
func listNames(ctx context.Context, blobs int) (listingResult, error) {
	hour := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	r := listingResult{Blobs: blobs}
	fail := func(err error) (listingResult, error) { return r, fmt.Errorf("list %d blobs: %w", blobs, err) }
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fail(err)
	}
	server := &http.Server{Handler: &crowd{blobs: blobs, hour: hour}, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // it ends with Close
	}()
	defer func() {
		_ = server.Close() // nobody is left to be told
		<-served
	}()
	store, err := blob.NewAzureStore([]blob.AccountConfig{{
		Name: "crowd", Endpoint: "http://" + listener.Addr().String() + "/crowd", SAS: secret.New("sv=1&sig=none"),
	}})
	if err != nil {
		return fail(err)
	}
	defer store.Close()
	cfg := listing.DefaultConfig(hour, listing.Container{Account: "crowd", Container: "logs"})
	cfg.Now = func() time.Time { return hour.Add(30 * time.Minute) }
	sweeper, err := listing.New(cfg, store)
	if err != nil {
		return fail(err)
	}
	began := time.Now()
	before, err := residentMiB()
	if err != nil {
		return fail(err)
	}
	var announced atomic.Int64
	err = sweeper.Sweep(ctx, func(context.Context, pipeline.Delivery) error {
		announced.Add(1)
		return nil
	})
	if err != nil {
		return fail(err)
	}
	peak, err := peakMiB()
	if err != nil {
		return fail(err)
	}
	r.Announced, r.Pages, r.GrowthMiB, r.Seconds = announced.Load(), sweeper.Stats().Pages, peak-before, time.Since(began).Seconds()
	return r, nil
}

// crowd answers List Blobs for a container of flow logs that are made up page by
// page. The marker is the number of the next one.
type crowd struct {
	blobs int
	hour  time.Time
}

const root = "flowLogResourceID=/SUB/RG/LOG/"

func (c *crowd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	prefix, from := q.Get("prefix"), 0
	if marker := q.Get("marker"); marker != "" {
		var err error
		if from, err = strconv.Atoi(marker); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	w.Header().Set("Content-Type", "application/xml")
	out := bufio.NewWriter(w)
	fmt.Fprint(out, `<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>`)
	next := ""
	if delimiter := q.Get("delimiter"); delimiter != "" {
		if rest, ok := strings.CutPrefix(root+c.hour.Format("y=2006/"), prefix); ok && rest != "" {
			folder, _, _ := strings.Cut(rest, delimiter)
			fmt.Fprintf(out, "<BlobPrefix><Name>%s</Name></BlobPrefix>", prefix+folder+delimiter)
		}
	} else if hour := root + c.hour.Format("y=2006/m=01/d=02/h=15/"); strings.HasPrefix(hour, prefix) {
		to := min(from+blob.PageSize, c.blobs)
		for i := from; i < to; i++ {
			fmt.Fprintf(out, `<Blob><Name>%sm=00/macAddress=%012X/PT1H.json</Name><Properties><Last-Modified>Mon, 23 Nov 2026 10:15:00 GMT</Last-Modified>`+
				`<Etag>0x8DC%013X</Etag><Content-Length>%d</Content-Length><Content-Type>application/octet-stream</Content-Type><BlobType>BlockBlob</BlobType></Properties></Blob>`, hour, i, i, 1000+i)
		}
		if to < c.blobs {
			next = strconv.Itoa(to)
		}
	}
	fmt.Fprintf(out, "</Blobs><NextMarker>%s</NextMarker></EnumerationResults>", next)
	_ = out.Flush() // the client is gone: there is nobody to tell
}
