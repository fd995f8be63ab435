package blob

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// The address is checked after the name was resolved, so what the name says a
// moment later does not matter.
func TestAddressesBehindAName(t *testing.T) {
	for _, c := range []struct {
		host, address string
		private       bool
		want          string // part of the refusal; "" means allowed
	}{
		{"a.blob.core.windows.net", "20.60.1.1:443", false, ""},
		{"a.blob.core.windows.net", "[2603:1030::1]:443", false, ""},
		{"a.blob.core.windows.net", "10.0.0.4:443", false, "private_network"},
		{"a.blob.core.windows.net", "10.0.0.4:443", true, ""},
		{"a.blob.core.windows.net", "192.168.1.1:443", false, "private"},
		{"a.blob.core.windows.net", "100.64.0.1:443", false, "private"},
		{"a.blob.core.windows.net", "[fd00::1]:443", false, "private"},
		{"a.blob.core.windows.net", "[::ffff:10.0.0.4]:443", false, "private"},
		{"a.blob.core.windows.net", "169.254.169.254:80", true, "link-local"},
		{"a.blob.core.windows.net", "[fe80::1]:80", true, "link-local"},
		{"a.blob.core.windows.net", "127.0.0.1:80", true, "loopback"},
		{"a.blob.core.windows.net", "[::1]:80", true, "loopback"},
		{"a.blob.core.windows.net", "0.0.0.0:80", true, "reserved"},
		{"a.blob.core.windows.net", "239.0.0.1:80", true, "reserved"},
		{"127.0.0.1", "127.0.0.1:10000", false, ""},
		{"10.1.2.3", "10.1.2.3:10000", false, ""},
		{"10.1.2.3", "10.1.2.4:10000", false, "private"},
		{"localhost", "127.0.0.1:10000", false, ""},
		{"localhost", "10.0.0.1:10000", false, "private"},
	} {
		err := dialer{host: c.host, private: c.private}.check(t.Context(), "tcp", c.address, nil)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s at %s (private allowed: %v): %v, want %q", c.host, c.address, c.private, err, c.want)
		}
	}
}

func TestOnlyTheEndpointIsDialled(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	for _, c := range []struct {
		d       dialer
		address string
		ok      bool
	}{
		{dialer{host: "127.0.0.1"}, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String(), true},
		{dialer{host: "a.blob.core.windows.net"}, l.Addr().String(), false},
		{dialer{host: "a.blob.core.windows.net", proxy: "127.0.0.1"}, l.Addr().String(), true},
		{dialer{host: "a.blob.core.windows.net"}, "169.254.169.254:80", false},
		{dialer{host: "a"}, "a", false},
	} {
		conn, err := c.d.dial(context.Background(), "tcp", c.address)
		if (err == nil) != c.ok {
			t.Errorf("%+v to %s: %v", c.d, c.address, err)
		}
		if conn != nil {
			_ = conn.Close()
		}
	}
}

func TestRegion(t *testing.T) {
	for _, c := range []struct {
		region string
		end    int
		closed bool
	}{
		{`{"a":{}}]}`, 8, true},
		{"{\"a\":{}}\n]\r\n}\n", 8, true},
		{`{"a":1}]}`, 7, false}, // one brace: left to Split
		{`{"a":{}}]`, 0, false},
		{`{"a":{}}`, 0, false},
		{`]}`, 0, false},
		{``, 0, false},
	} {
		if end, closed := closedBy([]byte(c.region)); closed != c.closed || closed && end != c.end {
			t.Errorf("closedBy %q: %d, %v", c.region, end, closed)
		}
	}
	for tail, c := range map[string]struct{ data, want string }{
		"":                 {"abc", "abc"},
		"abc":              {"defghijklmnop", "abcdefghijklmnop"},
		"abcd":             {"efghijklmnopq", "bcdefghijklmnopq"},
		"0123456789abcdef": {"0123456789abcdefg", "123456789abcdefg"},
	} {
		if got := string(nextTail([]byte(tail), []byte(c.data))); got != c.want {
			t.Errorf("tail of %q and %q is %q, want %q", tail, c.data, got, c.want)
		}
	}
}
