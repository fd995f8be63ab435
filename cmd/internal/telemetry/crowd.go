package telemetry

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
)

// crowd keeps a listener within a number of connections, and slow clients from
// holding all of them: when every place is taken, the newcomer gets that of the
// connection that has gone longest without being served. If it waited instead, a
// thousand clients that send nothing would keep /healthz from answering for more
// than a minute, and the process would be killed for it.
//
// Sequence: a client connects (place taken), its request has been read (serve marks
// it, it cannot be displaced), its answer is written (youngest again).
type crowd struct {
	net.Listener
	limit int

	mu     sync.Mutex
	guests []*guest // open, the longest without service first
}

// guest is one connection of a crowd.
type guest struct {
	net.Conn
	of      *crowd
	serving bool // guarded by of.mu
}

// Accept gives the next connection that has a place. One that comes while all
// others are being served is closed.
func (c *crowd) Accept() (net.Conn, error) {
	for {
		conn, err := c.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if g := c.admit(conn); g != nil {
			return g, nil
		}
		_ = conn.Close() // it never had a place
	}
}

func (c *crowd) admit(conn net.Conn) *guest {
	c.mu.Lock()
	var displaced *guest
	if len(c.guests) >= c.limit {
		i := slices.IndexFunc(c.guests, func(g *guest) bool { return !g.serving })
		if i < 0 {
			c.mu.Unlock()
			return nil
		}
		displaced = c.guests[i]
		c.guests = slices.Delete(c.guests, i, i+1)
	}
	g := &guest{Conn: conn, of: c}
	c.guests = append(c.guests, g)
	c.mu.Unlock()
	if displaced != nil {
		_ = displaced.Conn.Close() // the server finds out at its next read
	}
	return g
}

// Close gives the place back.
func (g *guest) Close() error {
	g.of.leave(g)
	return g.Conn.Close()
}

func (c *crowd) leave(g *guest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.guests, g); i >= 0 {
		c.guests = slices.Delete(c.guests, i, i+1)
	}
}

type guestKey struct{}

// remember is http.Server.ConnContext.
func (c *crowd) remember(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, guestKey{}, conn)
}

// serve marks the connection of each request while it is answered.
func (c *crowd) serve(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g, ok := r.Context().Value(guestKey{}).(*guest)
		if ok {
			c.mark(g, true)
			defer c.mark(g, false)
		}
		next.ServeHTTP(w, r)
	})
}

// mark changes whether a guest is being served, and makes it the youngest. One that
// was displaced meanwhile does not come back.
func (c *crowd) mark(g *guest, serving bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.guests, g); i >= 0 {
		c.guests = append(slices.Delete(c.guests, i, i+1), g)
		g.serving = serving
	}
}
