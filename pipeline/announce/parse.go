package announce

import (
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/millrace/millrace/pipeline"
)

const (
	blobCreated   = "Microsoft.Storage.BlobCreated"
	subjectPrefix = "/blobServices/default/containers/"
	subjectMiddle = "/blobs/"
	sequencerLen  = 64 // hex digits after padding; 32 and 48 are seen
	maxPathBytes  = 4 << 10
)

// Parse reads one message body: an event, an array of events, or several of
// either, one after the other. It gives an announcement for each event that says
// that bytes of an allowed blob are there, in the body's order, and counts the
// others by reason. A body that breaks off gives what was whole before the break.
//
// Shape: ContentLength is -1 when the event does not say; Sequencer is lower-case
// hex of one length, so that strings compare as the service means it, or "";
// EventTime is zero when absent.
// Source: Microsoft Learn, "Azure Blob Storage as an Event Grid source".
func (p *Parser) Parse(body []byte) ([]pipeline.Announcement, Counts) {
	var (
		found  []pipeline.Announcement
		counts Counts
	)
	err := events(body, func(e event, ok bool) {
		if !ok {
			counts.add(ReasonShape)
			return
		}
		a, reason := p.announcement(e)
		if reason != "" {
			counts.add(reason)
			return
		}
		found = append(found, a)
	})
	switch {
	case errors.Is(err, errLimit):
		counts.add(ReasonLimit)
	case err != nil:
		counts.add(ReasonSyntax)
	}
	return found, counts
}

func (p *Parser) announcement(e event) (pipeline.Announcement, Reason) {
	fail := func(r Reason) (pipeline.Announcement, Reason) { return pipeline.Announcement{}, r }
	switch {
	case e.kind == nil:
		return fail(ReasonShape)
	case *e.kind != blobCreated:
		return fail(ReasonType)
	case e.api == nil || e.url == nil || e.subject == nil:
		return fail(ReasonShape)
	case !writes(*e.api):
		return fail(ReasonAPI)
	case e.blobType != nil && *e.blobType == "PageBlob":
		return fail(ReasonBlobType)
	}
	length, ok := contentLength(e)
	if !ok {
		return fail(ReasonShape)
	}
	id, reason := p.blob(e)
	if reason != "" {
		return fail(reason)
	}
	a := pipeline.Announcement{Blob: id, ContentLength: length, Sequencer: sequencer(e.sequencer)}
	if e.time != nil {
		if t, err := time.Parse(time.RFC3339Nano, *e.time); err == nil {
			a.EventTime = t.UTC()
		}
	}
	return a, ""
}

// writes says whether the operation leaves bytes to read. CreateFile and
// SftpCreate only open a file; an operation that is not known is not trusted.
func writes(api string) bool {
	switch api {
	case "PutBlockList", "PutBlob", "CopyBlob", "FlushWithClose", "SftpCommit":
		return true
	}
	return false
}

// contentLength gives -1 when the event does not say. A length of zero is taken
// as unsaid where the service is known to send it for a blob with content: a
// commit over SFTP, the flush of a file, a copy that has just begun.
func contentLength(e event) (int64, bool) {
	if e.length == nil {
		return -1, true
	}
	n, err := strconv.ParseInt(*e.length, 10, 64)
	if err != nil || n < 0 {
		return 0, false
	}
	if n == 0 && *e.api != "PutBlockList" && *e.api != "PutBlob" {
		return -1, true
	}
	return n, true
}

// sequencer makes sequencers of any published length comparable as strings.
func sequencer(s *string) string {
	if s == nil || len(*s) > sequencerLen || *s == "" {
		return ""
	}
	hex := lower(*s)
	if strings.Trim(hex, "0123456789abcdef") != "" {
		return ""
	}
	return strings.Repeat("0", sequencerLen-len(hex)) + hex
}

// blob matches topic, subject and URL with the accounts. The name comes from the
// subject, which is not URL-encoded; the URL decides the account.
func (p *Parser) blob(e event) (pipeline.BlobID, Reason) {
	fail := func(r Reason) (pipeline.BlobID, Reason) { return pipeline.BlobID{}, r }
	a, rest, reason := p.account(*e.url)
	if reason != "" {
		return fail(reason)
	}
	container, path, ok := subject(*e.subject)
	if !ok {
		return fail(ReasonShape)
	}
	urlContainer, urlPath, _ := strings.Cut(rest, "/")
	if urlContainer != container || !samePath(urlPath, path) || !sameAccount(e.source, a.Name) {
		return fail(ReasonDisagree)
	}
	switch {
	case !slices.Contains(a.Containers, container):
		return fail(ReasonContainer)
	case !plain(path):
		return fail(ReasonPath)
	case !strings.HasPrefix(path, a.PathPrefix) || !strings.HasSuffix(path, a.PathSuffix):
		return fail(ReasonFilter)
	}
	return pipeline.BlobID{Account: a.Name, Container: container, Path: path}, ""
}

// account finds the account whose endpoint the URL begins with. The text is
// compared as it is, byte by byte, with no parser that could see another host in
// it than the next one: whatever is not exactly a configured endpoint and a slash
// is unknown.
func (p *Parser) account(raw string) (a *Account, rest string, reason Reason) {
	scheme, after, ok := strings.Cut(raw, "://")
	if !ok || scheme != "http" && scheme != "https" || strings.ContainsFunc(raw, odd) {
		return nil, "", ReasonURL
	}
	host, rest, ok := strings.Cut(after, "/")
	if !ok {
		return nil, "", ReasonURL
	}
	if a = p.endpoints[scheme+"://"+host]; a != nil {
		return a, rest, ""
	}
	segment, rest, ok := strings.Cut(rest, "/")
	if a = p.endpoints[scheme+"://"+host+"/"+segment]; ok && a != nil {
		return a, rest, ""
	}
	return nil, "", ReasonAccount
}

// odd finds what no URL of a blob has: a query, a fragment, a backslash, space and
// control characters.
func odd(r rune) bool {
	return r <= ' ' || r == 0x7f || r == '?' || r == '#' || r == '\\'
}

// subject reads /blobServices/default/containers/{container}/blobs/{path}.
func subject(s string) (container, path string, ok bool) {
	s, ok = strings.CutPrefix(s, subjectPrefix)
	if !ok {
		return "", "", false
	}
	container, path, ok = strings.Cut(s, subjectMiddle)
	if !ok || container == "" || path == "" || strings.Contains(container, "/") {
		return "", "", false
	}
	return container, path, true
}

// samePath compares the URL's path, encoded or not, with the subject's.
func samePath(inURL, path string) bool {
	if inURL == path {
		return true
	}
	decoded, err := url.PathUnescape(inURL)
	return err == nil && decoded == path
}

// sameAccount looks at the storage account that an ARM id names; the id's words
// are compared without case, as ARM does. An event without a topic says nothing.
func sameAccount(topic *string, name string) bool {
	if topic == nil || *topic == "" {
		return true
	}
	const word = "/storageaccounts/"
	at := strings.LastIndex(lower(*topic), word)
	return at >= 0 && lower((*topic)[at+len(word):]) == lower(name)
}

// lower is ASCII only: no letter of another script becomes one of ours.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// plain refuses names that mean another thing to somebody on the way: dot
// segments, control characters and backslashes, also percent-encoded once or
// twice, and what a decoder of broken text leaves behind. No flow log is named so.
func plain(path string) bool {
	if len(path) > maxPathBytes {
		return false
	}
	for range 3 {
		if !utf8.ValidString(path) || strings.ContainsFunc(path, unusual) {
			return false
		}
		for segment := range strings.SplitSeq(path, "/") {
			if segment == "." || segment == ".." {
				return false
			}
		}
		var err error
		if path, err = url.PathUnescape(path); err != nil {
			return false
		}
	}
	return true
}

func unusual(r rune) bool {
	return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\\' || r == utf8.RuneError
}
