package announce

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"unicode/utf8"
)

// event holds the members that matter, of either schema. A nil pointer is a
// member that is absent or null.
type event struct {
	kind, source, subject, time           *string
	api, url, blobType, sequencer, length *string // of data; length is the number's text
	bad                                   bool    // a member has another type
}

var errLimit = errors.New("limit")

// reader walks a body token by token. encoding/json alone would take member names
// of any case, the last of two equal ones, and 10,000 levels: an event could mean
// one thing here and another elsewhere.
type reader struct {
	dec    *json.Decoder
	events int
}

// events calls each for every element of every array and every other value at the
// top of the body.
//
// Errors: errLimit, or what the decoder gives; nothing behind it was seen.
func events(body []byte, each func(event, bool)) error {
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	if len(body) > MaxBodyBytes {
		return errLimit
	}
	if !utf8.Valid(body) {
		return errors.New("invalid UTF-8")
	}
	r := reader{dec: json.NewDecoder(bytes.NewReader(body))}
	r.dec.UseNumber()
	for first := true; ; first = false {
		t, err := r.dec.Token()
		if errors.Is(err, io.EOF) && !first {
			return nil
		}
		if err != nil {
			return err
		}
		if t != json.Delim('[') {
			err = r.event(t, 1, each)
		} else {
			err = r.array(each)
		}
		if err != nil {
			return err
		}
	}
}

func (r *reader) array(each func(event, bool)) error {
	for r.dec.More() {
		t, err := r.dec.Token()
		if err != nil {
			return err
		}
		if err := r.event(t, 2, each); err != nil {
			return err
		}
	}
	_, err := r.dec.Token()
	return err
}

// event reads the value that begins with t.
func (r *reader) event(t json.Token, depth int, each func(event, bool)) error {
	if r.events++; r.events > MaxEvents {
		return errLimit
	}
	if t != json.Delim('{') {
		err := r.rest(t, depth)
		if err == nil {
			each(event{}, false)
		}
		return err
	}
	var e event
	err := r.members(func(name string) error {
		switch name {
		case "eventType", "type":
			return r.text(&e.kind, &e.bad, depth+1)
		case "topic", "source":
			return r.text(&e.source, &e.bad, depth+1)
		case "subject":
			return r.text(&e.subject, &e.bad, depth+1)
		case "eventTime", "time":
			return r.text(&e.time, &e.bad, depth+1)
		case "data":
			return r.data(&e, depth+1)
		}
		return r.skip(depth + 1)
	})
	if err == nil {
		each(e, !e.bad)
	}
	return err
}

func (r *reader) data(e *event, depth int) error {
	t, err := r.dec.Token()
	if err != nil {
		return err
	}
	if t != json.Delim('{') {
		e.bad = e.bad || t != nil
		return r.rest(t, depth)
	}
	return r.members(func(name string) error {
		switch name {
		case "api":
			return r.text(&e.api, &e.bad, depth+1)
		case "url":
			return r.text(&e.url, &e.bad, depth+1)
		case "blobType":
			return r.text(&e.blobType, &e.bad, depth+1)
		case "sequencer":
			return r.text(&e.sequencer, &e.bad, depth+1)
		case "contentLength":
			return r.number(&e.length, &e.bad, depth+1)
		}
		return r.skip(depth + 1)
	})
}

// members reads an object behind its brace; value reads one member's value.
func (r *reader) members(value func(name string) error) error {
	var seen []string
	for r.dec.More() {
		t, err := r.dec.Token()
		if err != nil {
			return err
		}
		name, _ := t.(string)
		if len(seen) == MaxMembers || len(name) > MaxStringBytes || slices.Contains(seen, name) {
			return errLimit
		}
		seen = append(seen, name)
		if err := value(name); err != nil {
			return err
		}
	}
	_, err := r.dec.Token()
	return err
}

// text reads a string or null. A second member for the same thing, as in an event
// of both schemas at once, makes the event bad.
func (r *reader) text(to **string, bad *bool, depth int) error {
	t, err := r.dec.Token()
	if err != nil {
		return err
	}
	switch v := t.(type) {
	case string:
		if len(v) > MaxStringBytes {
			return errLimit
		}
		*bad = *bad || *to != nil
		*to = &v
	case nil:
	default:
		*bad = true
		return r.rest(t, depth)
	}
	return nil
}

func (r *reader) number(to **string, bad *bool, depth int) error {
	t, err := r.dec.Token()
	if err != nil {
		return err
	}
	switch v := t.(type) {
	case json.Number:
		s := v.String()
		*to = &s
	case nil:
	default:
		*bad = true
		return r.rest(t, depth)
	}
	return nil
}

// skip passes the next value.
func (r *reader) skip(depth int) error {
	t, err := r.dec.Token()
	if err != nil {
		return err
	}
	return r.rest(t, depth)
}

// rest passes what remains of the value that began with t.
func (r *reader) rest(t json.Token, depth int) error {
	if s, ok := t.(string); ok && len(s) > MaxStringBytes {
		return errLimit
	}
	d, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	if depth >= MaxDepth {
		return errLimit
	}
	if d == '{' {
		return r.members(func(string) error { return r.skip(depth + 1) })
	}
	for r.dec.More() {
		if err := r.skip(depth + 1); err != nil {
			return err
		}
	}
	_, err := r.dec.Token()
	return err
}
