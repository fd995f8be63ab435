package faults

import (
	"bytes"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// where an INSERT is caught on its way.
type where int

const (
	before where = iota // nothing of it has reached the server
	within              // the server has a part of its body
	after               // it has landed, and its client does not know
)

// gate stands in front of a ClickHouse and catches an INSERT when it is told to, so
// that a client can be frozen at that very moment. What the client has sent by then
// goes on when the gate lets go, however late.
type gate struct {
	server string
	listen net.Listener
	work   sync.WaitGroup

	trap    atomic.Pointer[trap]
	refused atomic.Int64 // INSERTs that were caught, went on, and met the fence
}

// trap catches one INSERT.
type trap struct {
	at     where
	taken  atomic.Bool
	caught chan struct{} // closed when it is there
	open   chan struct{} // closed when it may go on
	told   chan struct{} // closed when the server has answered
}

func newGate(t *testing.T) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return &gate{listen: l}
}

// via is for jobtest.Options: the pipeline meets the gate where its ClickHouse is.
func (g *gate) via(addr string) string {
	g.server = addr
	g.work.Go(g.serve)
	return g.listen.Addr().String()
}

func (g *gate) close() {
	if tr := g.trap.Load(); tr != nil {
		tr.release()
	}
	_ = g.listen.Close() // nobody listens to it
	g.work.Wait()
}

func (g *gate) serve() {
	for {
		client, err := g.listen.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", g.server)
		if err != nil {
			_ = client.Close() // as if the server had
			continue
		}
		p := &passage{gate: g, client: client, server: server}
		g.work.Go(p.up)
		g.work.Go(p.down)
	}
}

// catch sets a trap for the next INSERT.
func (g *gate) catch(at where) *trap {
	tr := &trap{at: at, caught: make(chan struct{}), open: make(chan struct{}), told: make(chan struct{})}
	g.trap.Store(tr)
	return tr
}

// release lets the INSERT go on; it may be called again, and for a trap that caught
// nothing.
func (tr *trap) release() {
	tr.taken.Store(true)
	select {
	case <-tr.open:
	default:
		close(tr.open)
	}
}

// passage is one connection.
type passage struct {
	gate           *gate
	client, server net.Conn

	held atomic.Pointer[trap] // of the INSERT whose answer comes next
}

func (p *passage) end() {
	_ = p.client.Close() // the other way may have
	_ = p.server.Close()
}

// up carries what the client says.
func (p *passage) up() {
	defer p.end()
	buffer := make([]byte, 64<<10)
	for {
		n, err := p.client.Read(buffer)
		if err != nil {
			return
		}
		data := buffer[:n]
		if tr := p.gate.trap.Load(); tr != nil && isInsert(data) && tr.taken.CompareAndSwap(false, true) {
			if data, err = p.hold(tr, data); err != nil {
				return
			}
		}
		if _, err := p.server.Write(data); err != nil {
			return
		}
	}
}

// isInsert knows the request of a piece by its query id.
func isInsert(data []byte) bool {
	head, _, _ := bytes.Cut(data, []byte("\r\n"))
	return bytes.HasPrefix(head, []byte("POST")) && bytes.Contains(head, []byte("query_id=millrace-")) && bytes.Contains(head, []byte("throwIf"))
}

// hold keeps what the trap wants kept until it opens, and gives what goes on then.
func (p *passage) hold(tr *trap, data []byte) ([]byte, error) {
	p.held.Store(tr)
	data, err := p.rest(bytes.Clone(data))
	if err != nil {
		return nil, err
	}
	switch tr.at {
	case after: // down holds the answer
		return data, nil
	case within:
		part := len(data) - min(len(data)/2, 1000)
		if _, err := p.server.Write(data[:part]); err != nil {
			return nil, err
		}
		data = data[part:]
	case before:
	}
	close(tr.caught)
	<-tr.open
	return data, nil
}

// rest reads the whole request: its client may be frozen from now on.
func (p *passage) rest(data []byte) ([]byte, error) {
	more := make([]byte, 64<<10)
	for !bytes.HasSuffix(data, []byte("\r\n0\r\n\r\n")) {
		n, err := p.client.Read(more)
		if err != nil {
			return nil, err
		}
		data = append(data, more[:n]...)
	}
	return data, nil
}

// down carries what the server says.
func (p *passage) down() {
	defer p.end()
	buffer := make([]byte, 64<<10)
	for {
		n, err := p.server.Read(buffer)
		if err != nil {
			return
		}
		if tr := p.held.Swap(nil); tr != nil {
			close(tr.told)
			if tr.at == after {
				close(tr.caught)
				<-tr.open
			} else if bytes.Contains(buffer[:n], []byte("X-ClickHouse-Exception-Code: 395")) {
				p.gate.refused.Add(1)
			}
		}
		if _, err := p.client.Write(buffer[:n]); err != nil {
			return
		}
	}
}
