package pipelinetest

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// peer is a server that completes the handshake and hangs up on the first byte that
// the client sends behind it.
type peer struct {
	address string
	shaken  atomic.Int64 // handshakes that were completed
	got     atomic.Int64 // bytes that came behind them
}

func startPeer(t *testing.T, conf *tls.Config) *peer {
	t.Helper()
	p := &peer{}
	p.address = Serve(t, func(conn net.Conn) { p.serve(conn, conf) })
	return p
}

func (p *peer) serve(conn net.Conn, conf *tls.Config) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	server := tls.Server(conn, conf)
	if server.Handshake() != nil {
		return
	}
	p.shaken.Add(1)
	n, _ := server.Read(make([]byte, 1<<10))
	p.got.Add(int64(n))
}

// TLSLaws proves that a client speaks with no server that it must not trust. trusted
// is an authority whose certificates it takes; connect lets it try an address,
// host:port, within some seconds, with a secret at hand, and gives its error.
//
// The server that is as it should be is there to show that the client gets as far as
// to speak: it hangs up on what it is told.
func TLSLaws(t *testing.T, trusted *Authority, connect func(t *testing.T, address string) error) {
	stranger, err := NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	certificate := func(a *Authority, change func(*x509.Certificate)) []tls.Certificate {
		cert, key, err := a.Issue(change)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{pair}
	}
	good := certificate(trusted, nil)
	for _, c := range []struct {
		name string
		conf *tls.Config
	}{
		{"as it should be", &tls.Config{Certificates: good, MinVersion: tls.VersionTLS12}},
		{"TLS 1.2", &tls.Config{Certificates: good, MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12}},
		{"TLS 1.1", &tls.Config{Certificates: good, MinVersion: tls.VersionTLS11, MaxVersion: tls.VersionTLS11}},
		{"TLS 1.0", &tls.Config{Certificates: good, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}},
		{"unknown authority", &tls.Config{Certificates: certificate(stranger, nil), MinVersion: tls.VersionTLS12}},
		{"another name", &tls.Config{MinVersion: tls.VersionTLS12, Certificates: certificate(trusted, func(c *x509.Certificate) {
			c.IPAddresses, c.DNSNames = nil, []string{"elsewhere.example", "127.0.0.1"} // an address is no name
		})}},
		{"another address", &tls.Config{MinVersion: tls.VersionTLS12, Certificates: certificate(trusted, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 2)} })}},
		{"expired", &tls.Config{MinVersion: tls.VersionTLS12, Certificates: certificate(trusted, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })}},
		{"of tomorrow", &tls.Config{MinVersion: tls.VersionTLS12, Certificates: certificate(trusted, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(24 * time.Hour) })}},
		{"a client's certificate", &tls.Config{MinVersion: tls.VersionTLS12, Certificates: certificate(trusted, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		})}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startPeer(t, c.conf)
			err := connect(t, p.address)
			if err == nil {
				t.Error("no error")
			}
			switch trusted := c.name == "as it should be" || c.name == "TLS 1.2"; {
			case trusted && p.got.Load() == 0:
				t.Errorf("the client said nothing: %v", err)
			case !trusted && p.got.Load() > 0:
				t.Errorf("the client sent %d bytes", p.got.Load())
			}
		})
	}
}
