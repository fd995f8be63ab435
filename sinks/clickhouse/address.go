package clickhouse

import (
	"errors"
	"fmt"
	"net"
	"net/url"
)

// address is where one server is and how it is spoken to.
type address struct {
	url    *url.URL
	host   string // with its port
	native bool   // ClickHouse's own TCP protocol instead of HTTP
	secure bool   // TLS
}

// ports are the schemes of a URL, with the port where none is named.
var ports = map[string]string{"http": "80", "https": "443", "tcp": "9000", "clickhouse": "9000", "tls": "9440"}

// CheckURL says whether the text is the address of a ClickHouse server.
//
// Errors: what is wrong. The text may hold a password: it is not repeated then.
func CheckURL(text string) error {
	_, err := parseAddress(text)
	return err
}

func isNative(text string) bool {
	at, err := parseAddress(text)
	return err == nil && at.native
}

// parseAddress gives what it understood also beside an error.
func parseAddress(text string) (address, error) {
	u, err := url.Parse(text)
	if err != nil {
		return address{}, errors.New("url is no URL") // The cause would repeat the text.
	}
	port, known := ports[u.Scheme]
	at := address{url: u, native: u.Scheme != "http" && u.Scheme != "https", secure: u.Scheme == "https" || u.Scheme == "tls"}
	if u.Scheme == "clickhouse" && u.RawQuery == "secure=true" { // As clickhouse-go spells it.
		at.secure, port = true, ports["tls"]
		u.RawQuery = ""
	}
	at.host = u.Host
	if u.Port() == "" {
		at.host = net.JoinHostPort(u.Hostname(), port)
	}
	switch {
	case u.User != nil:
		return at, errors.New("url holds a user or password: set user and password instead")
	case !known || u.Hostname() == "":
		return at, fmt.Errorf("url %q: want http://host:8123, https://host:8443, tcp://host:9000 or tls://host:9440", text)
	case u.RawQuery != "" || u.Fragment != "":
		return at, errors.New("url holds a query or fragment: want http://host:port")
	case at.native && u.Path != "" && u.Path != "/":
		return at, errors.New("url holds a path: native TCP has none, and the database is a key of its own")
	}
	return at, nil
}
