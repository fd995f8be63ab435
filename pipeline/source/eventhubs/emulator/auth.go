package emulator

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator/internal/wire"
)

// putToken takes a claim: a token for an audience.
func (c *conn) putToken(m *wire.Message) answer {
	text := func(key string) string { s, _ := m.AppProperties.Get(key).(string); return s }
	if op := text("operation"); op != "put-token" {
		return answer{code: 501, description: "The operation '" + op + "' is not supported."}
	}
	token, ok := m.Value.(string)
	if !ok || token == "" {
		return answer{code: 400, description: "The body holds no token."}
	}
	if c.s.cfg.Key == "" {
		return answer{code: 202, description: "Accepted"}
	}
	if kind := text("type"); kind != "servicebus.windows.net:sastoken" {
		return answer{code: 401, description: "Tokens of type '" + kind + "' cannot be checked here."}
	}
	scope, ends, err := checkToken(token, c.s.cfg.KeyName, c.s.cfg.Key, time.Now())
	if err != nil {
		return answer{code: 401, description: "InvalidSignature: " + err.Error()}
	}
	audience := strings.ToLower(pathOf(text("name")))
	if !covers(scope, audience) {
		return answer{code: 401, description: "The token is for '" + scope + "', not for '" + audience + "'."}
	}
	if len(c.claims) >= maxClaims && c.claims[audience].IsZero() {
		return answer{code: 403, description: "Too many tokens on this connection."}
	}
	c.claims[audience] = ends
	return answer{code: 202, description: "Accepted"}
}

// checkToken verifies a shared access signature and gives what it is for (a path
// in lower case) and when it ends.
//
// Source: "Generate a SAS token", learn.microsoft.com/rest/api/eventhub.
func checkToken(token, keyName, key string, now time.Time) (scope string, ends time.Time, err error) {
	rest, ok := strings.CutPrefix(token, "SharedAccessSignature ")
	if !ok {
		return "", ends, errors.New("not a shared access signature")
	}
	part := map[string]string{}
	for field := range strings.SplitSeq(rest, "&") {
		k, v, _ := strings.Cut(field, "=")
		part[k] = v
	}
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(part["sr"] + "\n" + part["se"]))
	want := base64.StdEncoding.EncodeToString(mac.Sum(nil))
	got, _ := url.QueryUnescape(part["sig"])
	name, _ := url.QueryUnescape(part["skn"])
	if name != keyName || subtle.ConstantTimeCompare([]byte(got), []byte(want)) != 1 {
		return "", ends, errors.New("the token has an invalid signature")
	}
	seconds, err := strconv.ParseInt(part["se"], 10, 64)
	if err != nil {
		return "", ends, errors.New("the token has no end")
	}
	if ends = time.Unix(seconds, 0); !ends.After(now) {
		return "", ends, errors.New("the token is expired")
	}
	audience, err := url.QueryUnescape(part["sr"])
	if err != nil {
		return "", ends, errors.New("the token has no audience")
	}
	if !strings.Contains(audience, "://") {
		audience = "sb://" + audience // a bare host
	}
	return strings.ToLower(pathOf(audience)), ends, nil
}

// covers tells whether a token for scope opens path: the same entity or one below.
func covers(scope, path string) bool {
	return scope == "" || scope == path || strings.HasPrefix(path, scope+"/")
}

// claimed tells whether the peer put a token that opens the path.
func (c *conn) claimed(path string) bool {
	if c.trusted {
		return true
	}
	now := time.Now()
	for scope, ends := range c.claims {
		if ends.After(now) && covers(scope, strings.ToLower(path)) {
			return true
		}
	}
	return false
}

// expire forgets tokens that have ended, and ends the links that no other opens.
func (c *conn) expire() {
	ended := false
	for path, ends := range c.claims {
		if ends.After(time.Now()) {
			c.dueAt(ends)
			continue
		}
		delete(c.claims, path)
		ended = true
	}
	if !ended {
		return
	}
	for _, s := range c.sessions {
		for _, l := range s.links {
			if err := c.authorize(l.node()); err != nil {
				l.detach(err)
			}
		}
	}
}

// authorize tells whether the peer may have a link to the node. Requests to
// $management are checked one by one.
func (c *conn) authorize(n node) *wire.Error {
	if n.kind == nodeCBS || n.kind == nodeManagement || c.claimed(n.path) {
		return nil
	}
	return wire.Errorf(condUnauthorized, "No token on this connection opens '%s'.", n.path)
}

// mayManage tells whether the peer may read about the hub: by a token it put for
// the hub or its management node, or by the one in the request.
func (c *conn) mayManage(h *hub, token string) bool {
	if c.claimed(h.name) || c.claimed(h.name+"/$management") {
		return true
	}
	scope, _, err := checkToken(token, c.s.cfg.KeyName, c.s.cfg.Key, time.Now())
	return err == nil && covers(scope, strings.ToLower(h.name))
}
