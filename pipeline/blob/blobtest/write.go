package blobtest

import (
	"encoding/xml"
	"io"
	"net/http"

	"github.com/millrace/millrace/pipeline"
)

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
	status, code, etag := c.s.refuse(*c.log)
	if code == "" {
		status, code, etag = c.s.apply(c.log.Op, id, c.r.URL.Query().Get("blockid"), body)
	}
	c.s.mu.Unlock()
	if c.fault.Cut {
		panic(http.ErrAbortHandler)
	}
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

// refuse looks at the conditions of Put Blob, under the lock. code is "" when they
// are met.
func (s *Server) refuse(r Request) (status int, code, etag string) {
	o := s.containers[r.Blob.Account+"/"+r.Blob.Container][r.Blob.Path]
	switch {
	case r.Op != "put":
	case r.IfNone == "*" && o != nil:
		return http.StatusConflict, "BlobAlreadyExists", ""
	case r.IfMatch != "" && (o == nil || o.etag != r.IfMatch):
		return http.StatusPreconditionFailed, "ConditionNotMet", ""
	}
	return 0, "", ""
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
