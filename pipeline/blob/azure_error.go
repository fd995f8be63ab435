package blob

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
)

// convert builds an Error out of what the SDK gave. Nothing of the SDK's error is
// wrapped, because its text and its fields hold the request's URL.
func (a *account) convert(ctx context.Context, op, object string, offset int64, err error) *Error {
	e := &Error{Op: op, Object: object, Offset: offset, Kind: KindUnavailable}
	if c := contextError(ctx.Err()); c != nil {
		e.context, e.Detail = c, c.Error()
		return e
	}
	var answer *azcore.ResponseError
	if errors.As(err, &answer) {
		e.Status, e.Code = answer.StatusCode, plainCode(answer.ErrorCode)
		if answer.RawResponse != nil {
			e.Wait = retryAfter(answer.RawResponse.Header, time.Now())
		}
		e.Kind, e.Detail = classify(e.Status, e.Code)
		return e
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // its text holds the URL
	}
	e.Kind, e.Detail = network(err)
	e.Detail = a.hide.text(e.Detail)
	return e
}

// classify gives the class of a status and what the reader of the error can do.
func classify(status int, code string) (Kind, string) {
	switch {
	case status >= 300 && status < 400:
		return KindOther, "redirects are not followed; set the account's endpoint to the final host"
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		switch code {
		case "AuthorizationPermissionMismatch", "AuthorizationServiceMismatch", "AuthorizationResourceTypeMismatch":
			return KindRefused, "the credential lacks the right; give it the role Storage Blob Data Reader, or a SAS with read and list"
		case "AuthorizationFailure", "AuthorizationSourceIPMismatch":
			return KindRefused, "the account's network rules refuse this address"
		}
		return KindRefused, "the credential is not accepted; check that it belongs to the account and has not expired"
	case status == http.StatusNotFound:
		return KindMissing, ""
	case status == http.StatusConflict:
		return KindConflict, ""
	case status == http.StatusPreconditionFailed:
		return KindChanged, ""
	case status == http.StatusRequestedRangeNotSatisfiable:
		return KindOutOfRange, ""
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
		return KindThrottled, ""
	case status == http.StatusRequestTimeout || status >= 500:
		return KindUnavailable, ""
	}
	return KindOther, ""
}

// network explains an error without an answer.
func network(err error) (Kind, string) {
	var (
		cert    *tls.CertificateVerificationError
		refused *addressError
		name    *net.DNSError
		op      *net.OpError
	)
	switch {
	case errors.As(err, &refused):
		return KindOther, refused.Error()
	case errors.As(err, &cert):
		return KindOther, "the certificate is not trusted: " + cert.Err.Error()
	case errors.As(err, &name):
		return KindUnavailable, "look up host " + strconv.Quote(name.Name) + ": " + name.Err
	case errors.As(err, &op):
		return KindUnavailable, op.Error()
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return KindUnavailable, "the connection was closed"
	}
	// Among the rest are identities that give no token just now, which the SDK calls
	// final; whether it passes only time can tell.
	return KindUnavailable, err.Error()
}

// plainCode keeps an error code only if it looks like one.
func plainCode(code string) string {
	if len(code) > 64 {
		return ""
	}
	for _, c := range code {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return ""
		}
	}
	return code
}

// retryAfter reads how long the service asks to wait.
func retryAfter(h http.Header, now time.Time) time.Duration {
	for _, name := range []string{"Retry-After-Ms", "X-Ms-Retry-After-Ms"} {
		if n, err := strconv.Atoi(h.Get(name)); err == nil && n > 0 {
			return time.Duration(n) * time.Millisecond
		}
	}
	v := h.Get("Retry-After")
	if n, err := strconv.Atoi(v); err == nil && n > 0 && n < 1<<20 {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}

// scrubber takes the account's secrets and every query string out of a text that
// others wrote. It is the last resort: texts are built without them.
type scrubber struct{ secrets *strings.Replacer }

var (
	queryString = regexp.MustCompile(`\?[^\s"']*`)
	signature   = regexp.MustCompile(`(?i)\b(sig|signature|accountkey|sharedaccesssignature|authorization)\s*[=:]\s*[^\s;&"']+`)
)

// detailLimit bounds a text that others wrote.
const detailLimit = 400

func newScrubber(c AccountConfig, cred credentials) *scrubber {
	var pairs []string
	for _, s := range append(cred.raw, c.SharedKey.Reveal(), c.SAS.Reveal(), c.ConnectionString.Reveal()) {
		if s != "" {
			pairs = append(pairs, s, "***")
		}
	}
	return &scrubber{secrets: strings.NewReplacer(pairs...)}
}

func (s *scrubber) text(text string) string {
	text = s.secrets.Replace(text)
	text = signature.ReplaceAllString(text, "$1=***")
	text = queryString.ReplaceAllString(text, "")
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > detailLimit {
		text = strings.ToValidUTF8(text[:detailLimit], "") + "…"
	}
	return text
}
