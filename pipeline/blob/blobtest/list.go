package blobtest

import (
	"encoding/base64"
	"encoding/xml"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

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
