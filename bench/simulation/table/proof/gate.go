package main

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
)

// gate is a TCP proxy before the engine that holds the INSERT of a piece up: behind
// the first so many of its bytes nothing passes any more until the gate is opened or
// cut. Everything else passes.
type gate struct {
	url    string
	target string
	pass   int  // bytes of the INSERT that pass
	mute   bool // the whole INSERT passes, but no answer
	listen net.Listener
	wg     sync.WaitGroup

	held   chan struct{} // closed when an INSERT is held
	opened chan struct{}
	once   sync.Once
	open   sync.Once
	mu     sync.Mutex
	conns  []net.Conn
}

// insertMark stands in the request of every INSERT of a piece, and of nothing else.
var insertMark = []byte("query_id=millrace-")

func newGate(url string, pass int, mute bool) (*gate, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := &gate{
		url: "http://" + l.Addr().String(), target: strings.TrimPrefix(url, "http://"), pass: pass, mute: mute, listen: l,
		held: make(chan struct{}), opened: make(chan struct{}),
	}
	g.wg.Go(g.accept)
	return g, nil
}

func (g *gate) accept() {
	for {
		client, err := g.listen.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", g.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		g.mu.Lock()
		g.conns = append(g.conns, client, server)
		g.mu.Unlock()
		insert := make(chan struct{})
		g.wg.Go(func() { g.forward(client, server, insert) })
		g.wg.Go(func() { g.answer(client, server, insert) })
	}
}

// forward carries requests. The gate is before the connection that shows the mark.
func (g *gate) forward(client, server net.Conn, insert chan struct{}) {
	defer server.Close()
	buf := make([]byte, 64<<10)
	passed := -1 // bytes of the INSERT; none yet
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		if passed < 0 && bytes.Contains(buf[:n], insertMark) {
			passed = 0
			close(insert)
		}
		if passed >= 0 && !g.mute {
			if passed += n; passed > g.pass {
				before := max(0, n-(passed-g.pass))
				if _, err := server.Write(buf[:before]); err != nil {
					return
				}
				g.wait()
				copy(buf, buf[before:n])
				n -= before
			}
		}
		if _, err := server.Write(buf[:n]); err != nil {
			return
		}
	}
}

// answer carries answers back; a mute gate keeps that to an INSERT.
func (g *gate) answer(client, server net.Conn, insert chan struct{}) {
	defer client.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		if g.mute {
			select {
			case <-insert:
				g.wait()
				return
			default:
			}
		}
		if _, err := io.Copy(client, bytes.NewReader(buf[:n])); err != nil {
			return
		}
	}
}

// wait says that the INSERT is held and returns when it is not any more.
func (g *gate) wait() {
	g.once.Do(func() { close(g.held) })
	<-g.opened
}

// release lets everything pass from now on.
func (g *gate) release() { g.open.Do(func() { close(g.opened) }) }

// cut breaks all connections.
func (g *gate) cut() {
	g.mu.Lock()
	for _, c := range g.conns {
		_ = c.Close()
	}
	g.mu.Unlock()
	g.release()
}

// close ends the gate and waits for its goroutines.
func (g *gate) close() {
	_ = g.listen.Close()
	g.cut()
	g.wg.Wait()
}
