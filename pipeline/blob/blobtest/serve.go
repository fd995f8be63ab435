package blobtest

import (
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/pipeline"
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
		Method: r.Method, Op: "other", IfMatch: r.Header.Get("If-Match"), Query: r.URL.RawQuery,
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

type listResult struct {
	XMLName   xml.Name `xml:"EnumerationResults"`
	Container string   `xml:"ContainerName,attr"`
	Prefix    string   `xml:"Prefix"`
	Delimiter string   `xml:"Delimiter,omitempty"`
	Blobs     struct {
		Blob       []listBlob
		BlobPrefix []listPrefix
	} `xml:"Blobs"`
	NextMarker string `xml:"NextMarker"`
}

type listPrefix struct{ Name string }

type listBlob struct {
	Name       string
	Properties struct {
		Created  string `xml:"Creation-Time"`
		Modified string `xml:"Last-Modified"`
		ETag     string `xml:"Etag"`
		Length   int    `xml:"Content-Length"`
		BlobType string `xml:"BlobType"`
	}
}

// list answers List Blobs. The marker is the last name of the page before.
func (c *call) list() {
	q := c.r.URL.Query()
	size, err := strconv.Atoi(q.Get("maxresults"))
	if err != nil || size <= 0 || size > 5000 {
		size = 5000
	}
	after, err := base64.RawURLEncoding.DecodeString(q.Get("marker"))
	if err != nil {
		c.fail(http.StatusBadRequest, "InvalidQueryParameterValue")
		return
	}
	if c.s.PageSize > 0 {
		size = min(size, c.s.PageSize)
	}
	id := c.log.Blob
	c.s.mu.Lock()
	blobs, known := c.s.containers[id.Account+"/"+id.Container]
	if !known {
		c.s.mu.Unlock()
		c.fail(http.StatusNotFound, "ContainerNotFound")
		return
	}
	result := page(blobs, q.Get("prefix"), q.Get("delimiter"), string(after), size)
	c.s.mu.Unlock()
	result.Container = id.Container
	out, err := xml.Marshal(result)
	if err != nil {
		c.fail(http.StatusInternalServerError, "InternalError")
		return
	}
	c.w.Header().Set("Content-Type", "application/xml")
	c.status(http.StatusOK)
	c.body(append([]byte(xml.Header), out...))
}

func page(blobs map[string]*object, prefix, delimiter, after string, size int) listResult {
	r := listResult{Prefix: prefix, Delimiter: delimiter}
	names := make([]string, 0, len(blobs))
	for name := range blobs {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	last := ""
	for n, i := 0, 0; i < len(names); i++ {
		name, folder := names[i], false
		if delimiter != "" {
			if at := strings.Index(name[len(prefix):], delimiter); at >= 0 {
				name, folder = name[:len(prefix)+at+len(delimiter)], true
			}
		}
		if name <= after || folder && name == last {
			continue
		}
		if n++; n > size {
			r.NextMarker = base64.RawURLEncoding.EncodeToString([]byte(last))
			break
		}
		last = name
		if folder {
			r.Blobs.BlobPrefix = append(r.Blobs.BlobPrefix, listPrefix{Name: name})
			continue
		}
		o := blobs[name]
		b := listBlob{Name: name}
		b.Properties.Created = o.created.UTC().Format(http.TimeFormat)
		b.Properties.Modified = o.modified.UTC().Format(http.TimeFormat)
		b.Properties.ETag = strings.Trim(o.etag, `"`)
		b.Properties.Length, b.Properties.BlobType = len(o.data), "BlockBlob"
		r.Blobs.Blob = append(r.Blobs.Blob, b)
	}
	return r
}

// maxBody bounds what a writer may send in one request.
const maxBody = 256 << 20

// write answers the requests of writers.
func (c *call) write() {
	body, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	if err != nil {
		c.fail(http.StatusRequestEntityTooLarge, "RequestBodyTooLarge")
		return
	}
	id := c.log.Blob
	c.s.mu.Lock()
	status, code, etag := c.s.apply(c.log.Op, id, c.r.URL.Query().Get("blockid"), body)
	c.s.mu.Unlock()
	if code != "" {
		c.fail(status, code)
		return
	}
	c.w.Header().Set("Content-Length", "0")
	if etag != "" {
		c.w.Header().Set("ETag", etag)
		c.w.Header().Set("Last-Modified", c.s.now().UTC().Format(http.TimeFormat))
	}
	c.status(status)
}

// apply changes the state, under the lock.
func (s *Server) apply(op string, id pipeline.BlobID, block string, body []byte) (status int, code, etag string) {
	if op == "container" {
		if s.containers[id.Account+"/"+id.Container] != nil {
			return http.StatusConflict, "ContainerAlreadyExists", ""
		}
		s.container(id.Account, id.Container)
		return http.StatusCreated, "", ""
	}
	blobs, known := s.containers[id.Account+"/"+id.Container]
	if !known {
		return http.StatusNotFound, "ContainerNotFound", ""
	}
	o := blobs[id.Path]
	switch op {
	case "put":
		return http.StatusCreated, "", s.put(id, body).etag
	case "delete":
		if o == nil {
			return http.StatusNotFound, "BlobNotFound", ""
		}
		delete(blobs, id.Path)
		return http.StatusAccepted, "", ""
	case "block":
		s.stage(id, block, body)
		return http.StatusCreated, "", ""
	}
	return s.commit(id, body)
}

// staged keeps blocks of blobs that have no committed version yet.
func (s *Server) stage(id pipeline.BlobID, block string, body []byte) {
	key := id.Account + "/" + id.Container + "\x00staged"
	if s.containers[key] == nil {
		s.containers[key] = map[string]*object{}
	}
	o := s.containers[key][id.Path]
	if o == nil {
		o = &object{blocks: map[string][]byte{}}
		s.containers[key][id.Path] = o
	}
	o.blocks[block] = body
}

func (s *Server) commit(id pipeline.BlobID, body []byte) (status int, code, etag string) {
	var list struct {
		Ids []struct {
			XMLName xml.Name
			Id      string `xml:",chardata"` //nolint:revive // an element's text
		} `xml:",any"`
	}
	if xml.Unmarshal(body, &list) != nil {
		return http.StatusBadRequest, "InvalidXmlDocument", ""
	}
	staged := s.containers[id.Account+"/"+id.Container+"\x00staged"][id.Path]
	was := s.container(id.Account, id.Container)[id.Path]
	blocks, data := map[string][]byte{}, []byte{}
	for _, item := range list.Ids {
		var b []byte
		found := false
		if staged != nil && item.XMLName.Local != "Committed" {
			b, found = staged.blocks[item.Id]
		}
		if was != nil && !found && item.XMLName.Local != "Uncommitted" {
			b, found = was.blocks[item.Id]
		}
		if !found {
			return http.StatusBadRequest, "InvalidBlockList", ""
		}
		blocks[item.Id] = b
		data = append(data, b...)
	}
	o := s.put(id, data)
	o.blocks = blocks
	delete(s.containers[id.Account+"/"+id.Container+"\x00staged"], id.Path)
	return http.StatusCreated, "", o.etag
}
