package blobtest

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// call is one request on its way.
type call struct {
	s     *Server
	w     http.ResponseWriter
	r     *http.Request
	log   *Request
	fault Fault
}

// ServeHTTP answers one request, after the fault that was chosen for it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{s: s, w: w, r: r, log: describe(r)}
	s.mu.Lock()
	c.log.N = len(s.log) + 1
	s.log = append(s.log, c.log)
	choose := s.fault
	seen := *c.log
	s.mu.Unlock()
	if choose != nil {
		if f := choose(seen); f != nil {
			c.fault = *f
		}
	}
	if c.fault.Before != nil {
		c.fault.Before()
	}
	h := w.Header()
	h.Set("x-ms-version", "2025-01-05")
	h.Set("x-ms-request-id", fmt.Sprintf("%08d-0000-0000-0000-000000000000", c.log.N))
	if c.fault.Status != 0 {
		for k, v := range c.fault.Header {
			h[http.CanonicalHeaderKey(k)] = v
		}
		c.fail(c.fault.Status, c.fault.Code)
		return
	}
	switch c.log.Op {
	case "get", "head":
		c.get()
	case "list":
		c.list()
	case "put", "block", "commit", "delete", "container":
		c.write()
	default:
		c.fail(http.StatusBadRequest, "UnsupportedOperation")
	}
}

func describe(r *http.Request) *Request {
	q := r.URL.Query()
	log := &Request{
		Method: r.Method, Op: "other", IfMatch: r.Header.Get("If-Match"), IfNone: r.Header.Get("If-None-Match"), Query: r.URL.RawQuery,
		Auth: r.Header.Get("Authorization"), UserAgent: r.UserAgent(), Range: r.Header.Get("x-ms-range"),
	}
	if log.Range == "" {
		log.Range = r.Header.Get("Range")
	}
	parts := strings.SplitN(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/", 3)
	for i, to := range []*string{&log.Blob.Account, &log.Blob.Container, &log.Blob.Path} {
		if i < len(parts) {
			*to, _ = url.PathUnescape(parts[i])
		}
	}
	switch comp := q.Get("comp"); {
	case log.Blob.Path == "" && comp == "list" && r.Method == http.MethodGet:
		log.Op = "list"
	case log.Blob.Path == "" && q.Get("restype") == "container" && r.Method == http.MethodPut:
		log.Op = "container"
	case log.Blob.Path == "":
	case r.Method == http.MethodGet && comp == "":
		log.Op = "get"
	case r.Method == http.MethodHead && comp == "":
		log.Op = "head"
	case r.Method == http.MethodPut && comp == "":
		log.Op = "put"
	case r.Method == http.MethodPut && comp == "block":
		log.Op = "block"
	case r.Method == http.MethodPut && comp == "blocklist":
		log.Op = "commit"
	case r.Method == http.MethodDelete:
		log.Op = "delete"
	}
	return log
}

func (c *call) status(status int) {
	c.s.mu.Lock()
	c.log.Status = status
	c.s.mu.Unlock()
	c.w.WriteHeader(status)
}

func (c *call) fail(status int, code string) {
	h := c.w.Header()
	body := ""
	if code != "" {
		h.Set("x-ms-error-code", code)
		h.Set("Content-Type", "application/xml")
		body = xml.Header + "<Error><Code>" + code + "</Code><Message>" + code + "</Message></Error>"
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	c.status(status)
	if c.r.Method != http.MethodHead {
		_, _ = io.WriteString(c.w, body)
	}
}

// get answers Get Blob and Get Blob Properties.
func (c *call) get() {
	c.s.mu.Lock()
	id := c.log.Blob
	blobs, known := c.s.containers[id.Account+"/"+id.Container]
	var o object
	found := blobs[id.Path] != nil
	if found {
		o = *blobs[id.Path]
	}
	c.s.mu.Unlock()
	switch {
	case !known:
		c.fail(http.StatusNotFound, "ContainerNotFound")
		return
	case !found:
		c.fail(http.StatusNotFound, "BlobNotFound")
		return
	case c.log.IfMatch != "" && c.log.IfMatch != "*" && c.log.IfMatch != o.etag:
		c.fail(http.StatusPreconditionFailed, "ConditionNotMet")
		return
	}
	size := int64(len(o.data))
	first, end, ranged, ok := parseRange(c.log.Range, size)
	if !ok {
		c.w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", size))
		c.fail(http.StatusRequestedRangeNotSatisfiable, "InvalidRange")
		return
	}
	if c.fault.WholeBlob {
		first, end, ranged = 0, size, false
	}
	h := c.w.Header()
	if !c.fault.NoETag {
		h.Set("ETag", o.etag)
	}
	h.Set("Last-Modified", o.modified.UTC().Format(http.TimeFormat))
	h.Set("x-ms-creation-time", o.created.UTC().Format(http.TimeFormat))
	h.Set("x-ms-blob-type", "BlockBlob")
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(end-first, 10))
	status := http.StatusOK
	if ranged {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, end-1, size))
		status = http.StatusPartialContent
	}
	c.status(status)
	if c.r.Method == http.MethodGet {
		c.body(o.data[first:end])
	}
}

// parseRange reads bytes=a- and bytes=a-b. ok is false when the range begins at or
// behind the end.
func parseRange(text string, size int64) (first, end int64, ranged, ok bool) {
	span, found := strings.CutPrefix(text, "bytes=")
	from, to, dash := strings.Cut(span, "-")
	first, err := strconv.ParseInt(from, 10, 64)
	if !found || !dash || err != nil {
		return 0, size, false, true
	}
	end = size
	if last, err := strconv.ParseInt(to, 10, 64); err == nil {
		end = min(size, last+1)
	}
	return first, end, true, first < size && first < end
}

// body sends data with the faults of bodies.
func (c *call) body(data []byte) {
	f := c.fault
	if f.Cut || f.Stall {
		_ = http.NewResponseController(c.w).Flush() // the head arrives, whatever becomes of the body
	}
	first := int64(len(data))
	switch {
	case f.Cut || f.Stall || f.During != nil && f.CutAfter > 0:
		first = min(first, f.CutAfter)
	case f.During != nil:
		first = min(first, 1)
	}
	c.send(data[:first])
	if f.During != nil {
		f.During()
	}
	if f.Stall {
		<-c.r.Context().Done()
	}
	if f.Cut || f.Stall {
		panic(http.ErrAbortHandler)
	}
	c.send(data[first:])
}

func (c *call) send(data []byte) {
	step := len(data)
	if c.fault.Pace > 0 {
		step = 1
	}
	for len(data) > 0 {
		n, err := c.w.Write(data[:min(step, len(data))])
		c.s.mu.Lock()
		c.log.Sent += int64(n)
		c.s.mu.Unlock()
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		data = data[n:]
		_ = http.NewResponseController(c.w).Flush()
		if c.fault.Pace > 0 {
			select {
			case <-time.After(c.fault.Pace):
			case <-c.r.Context().Done():
				panic(http.ErrAbortHandler)
			}
		}
	}
}
