package blob

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"
)

// DialFunc opens a connection to host:port.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Limits of the connections to one account.
const (
	maxConnections    = 64
	maxHeaderBytes    = 64 << 10
	dialTimeout       = 10 * time.Second
	handshakeTimeout  = 10 * time.Second
	idleConnectionAge = time.Minute
)

// httpClient makes a client that can reach the endpoint's host, or the proxy that
// the environment names for it, and nothing else.
func httpClient(c AccountConfig, endpoint *url.URL) (*http.Client, error) {
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: endpoint})
	if err != nil {
		return nil, errors.New("the proxy settings of the environment are malformed")
	}
	dial := c.Dial
	if dial == nil {
		d := dialer{host: endpoint.Hostname(), private: c.PrivateNetwork}
		if proxy != nil {
			d.proxy = proxy.Hostname()
		}
		dial = d.dial
	}
	return &http.Client{
		// A redirect is an answer like any other: the classes make an error of it.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  http.ProxyURL(proxy),
			DialContext:            dial,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    handshakeTimeout,
			MaxConnsPerHost:        maxConnections,
			MaxIdleConnsPerHost:    maxConnections,
			IdleConnTimeout:        idleConnectionAge,
			MaxResponseHeaderBytes: maxHeaderBytes,
			// Offsets count the stored bytes, so nobody may compress on the way.
			DisableCompression: true,
		},
	}, nil
}

// dialer connects to one host and looks at the address that its name resolved to,
// after the resolution: a name that changes its answer in between gains nothing.
type dialer struct {
	host    string
	proxy   string // may be dialled as it is: the administrator set it
	private bool
}

func (d dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, &addressError{"dial an address without a port"}
	}
	plain := net.Dialer{Timeout: dialTimeout}
	switch {
	case host == d.host:
		plain.ControlContext = d.check
	case host != d.proxy || d.proxy == "":
		return nil, &addressError{fmt.Sprintf("host %q is not the account's endpoint", host)}
	}
	return plain.DialContext(ctx, network, address)
}

func (d dialer) check(_ context.Context, _, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return &addressError{fmt.Sprintf("address %q is not understood", address)}
	}
	if literal, err := netip.ParseAddr(d.host); err == nil && literal.Unmap() == to.Addr().Unmap() {
		return nil // configured as such
	}
	if reason := forbidden(to.Addr().Unmap(), d.private); reason != "" && (d.host != "localhost" || reason != "loopback") {
		hint := ""
		if reason == "private" {
			hint = "; set private_network for the account if it is behind a private link"
		}
		return &addressError{fmt.Sprintf("host %q resolved to the %s address %s%s", d.host, reason, to.Addr(), hint)}
	}
	return nil
}

var sharedSpace = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598

func forbidden(a netip.Addr, private bool) string {
	switch {
	case a.IsLoopback():
		return "loopback"
	case a.IsLinkLocalUnicast(), a.IsLinkLocalMulticast():
		return "link-local"
	case a.IsUnspecified(), a.IsMulticast(), a.IsInterfaceLocalMulticast():
		return "reserved"
	case !private && (a.IsPrivate() || sharedSpace.Contains(a)):
		return "private"
	}
	return ""
}

// addressError says that a connection was not made because of where it led.
type addressError struct{ text string }

func (e *addressError) Error() string { return e.text }

// maxPathBytes is the longest name of a blob that the service allows, 1,024
// characters, in bytes.
const maxPathBytes = 4 << 10

// validPath refuses names that a URL would not carry as they are. The parser of
// announcements refuses more; this is the last border before a request is built.
func validPath(path string) bool {
	if path == "" || len(path) > maxPathBytes || !utf8.ValidString(path) || strings.ContainsFunc(path, isControl) {
		return false
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return false
		}
	}
	return true
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }

// validContainer: 3 to 63 lower-case letters, digits and dashes, or $root, $web,
// $logs.
func validContainer(name string) bool {
	if len(name) < 3 || len(name) > 63 {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && (c != '$' || i > 0) {
			return false
		}
	}
	return true
}
