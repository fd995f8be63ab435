package process

import (
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"
)

const (
	// portSpan is how many ports after the preferred one are tried before any
	// free port is taken.
	portSpan = 100
	// reuseAfter keeps a port from being handed out twice while the first
	// caller's child is still on its way to bind it.
	reuseAfter = 10 * time.Second
)

// Port is a TCP port on 127.0.0.1 that is held until Release.
type Port struct {
	Number int
	// Moved says that the preferred port was busy: tell the user.
	Moved    bool
	listener net.Listener
}

var handedOut = struct {
	sync.Mutex
	at map[int]time.Time
}{at: map[int]time.Time{}}

// ReservePort finds the preferred port or the next free one after it, and
// holds it with a listener. A preferred port of 0 asks for any free port.
//
// Between Release and the moment the child binds the port somebody else may
// take it. Callers start again with a new port when the child ends and
// [Port.Taken] says so.
func ReservePort(preferred int) (*Port, error) {
	if preferred != 0 {
		for n := preferred; n < preferred+portSpan && n <= 65535; n++ {
			if p := listen(n); p != nil {
				p.Moved = n != preferred
				return p, nil
			}
		}
	}
	for range portSpan {
		if p := listen(0); p != nil {
			p.Moved = preferred != 0
			return p, nil
		}
	}
	return nil, fmt.Errorf("reserve port %d: no free port on 127.0.0.1", preferred)
}

// PickPort is ReservePort for callers that cannot hold a listener. It returns
// 0 when the machine has no free port.
func PickPort(preferred int) (port int, moved bool) {
	p, err := ReservePort(preferred)
	if err != nil {
		return 0, false
	}
	p.Release()
	return p.Number, p.Moved
}

// listen returns nil when the port is busy or was handed out a moment ago.
func listen(n int) *Port {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(n)))
	if err != nil {
		return nil
	}
	n = l.Addr().(*net.TCPAddr).Port
	handedOut.Lock()
	defer handedOut.Unlock()
	if at, ok := handedOut.at[n]; ok && time.Since(at) < reuseAfter {
		_ = l.Close()
		return nil
	}
	handedOut.at[n] = time.Now()
	return &Port{Number: n, listener: l}
}

// Release frees the port for the child. Call it right before Start.
func (p *Port) Release() { _ = p.listener.Close() }

// Bound says that the child has the port now, or never will: from here on the
// port is free exactly if nobody listens on it.
func (p *Port) Bound() {
	handedOut.Lock()
	defer handedOut.Unlock()
	delete(handedOut.at, p.Number)
}

// Taken says whether somebody listens on the port now.
func (p *Port) Taken() bool {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Number)))
	if err != nil {
		return true
	}
	_ = l.Close()
	return false
}
