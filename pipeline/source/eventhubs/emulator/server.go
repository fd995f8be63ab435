package emulator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Server is the emulator. Its methods may be called from any goroutine.
type Server struct {
	cfg      Config
	listener net.Listener
	hubs     map[string]*hub // by lower-case name
	names    []string
	faults   faults
	stats    counters

	mu    sync.Mutex
	conns map[*conn]struct{}
	wg    sync.WaitGroup
}

// New checks the configuration and takes the port; it starts nothing. Events may
// be published before Run.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	l, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen for Event Hubs clients: %w", err)
	}
	s := &Server{
		cfg: cfg, listener: l, hubs: map[string]*hub{},
		conns: map[*conn]struct{}{},
	}
	for _, h := range cfg.Hubs {
		s.hubs[strings.ToLower(h.Name)] = newHub(h, cfg.Now())
		s.names = append(s.names, h.Name)
	}
	return s, nil
}

// Addr is the address that clients connect to.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// ConnectionString gives what the official clients want, for one hub or, with an
// empty name, for the namespace. It holds the key.
func (s *Server) ConnectionString(hub string) string {
	host, port, _ := net.SplitHostPort(s.Addr())
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	text := fmt.Sprintf("Endpoint=sb://%s;SharedAccessKeyName=%s;SharedAccessKey=%s;UseDevelopmentEmulator=true",
		net.JoinHostPort(host, port), s.cfg.KeyName, orDefault(s.cfg.Key, "any"))
	if hub != "" {
		text += ";EntityPath=" + hub
	}
	return text
}

// Run serves until ctx ends, then closes all connections and returns nil when all
// its goroutines are gone.
//
// Errors: the listener failed.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = s.listener.Close() })
	defer stop()
	s.wg.Go(func() { s.housekeep(ctx) })
	for {
		nc, err := s.listener.Accept()
		if err != nil {
			_ = s.listener.Close()
			if ctx.Err() != nil {
				return nil
			}
			if isTemporary(err) {
				pause(ctx, 10*time.Millisecond)
				continue
			}
			return fmt.Errorf("accept connection: %w", err)
		}
		s.start(ctx, nc)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// isTemporary tells errors of one connection, or of a lack of file descriptors,
// from those of the listener.
func isTemporary(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && !errors.Is(err, net.ErrClosed)
}

// Close gives the port back. Only a server that never ran needs it.
func (s *Server) Close() error { return s.listener.Close() }

func (s *Server) start(ctx context.Context, nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) >= s.cfg.MaxConnections {
		s.stats.refused.Add(1)
		_ = nc.Close()
		return
	}
	c := newConn(s, nc)
	s.conns[c] = struct{}{}
	s.stats.connections.Add(1)
	s.wg.Go(func() {
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.conns, c)
		}()
		c.serve(ctx)
	})
}

func (s *Server) housekeep(ctx context.Context) {
	tick := time.NewTicker(housekeepingEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.trim()
		}
	}
}

func (s *Server) trim() {
	for _, h := range s.hubs {
		for _, p := range h.partitions {
			p.mu.Lock()
			p.trim(s.cfg.Now(), s.cfg.Retention)
			p.mu.Unlock()
		}
	}
}

func (s *Server) hub(name string) *hub { return s.hubs[strings.ToLower(name)] }

// hub is one event hub.
type hub struct {
	name       string
	partitions []*partition
	groups     map[string]bool // lower case
	turn       atomic.Uint64   // of the partitions, for events without a key
	created    atomic.Int64    // ms since the epoch
}

func newHub(h Hub, now time.Time) *hub {
	out := &hub{name: h.Name, groups: map[string]bool{strings.ToLower(DefaultGroup): true}}
	out.created.Store(now.UnixMilli())
	for i := range h.Partitions {
		out.partitions = append(out.partitions, newPartition(fmt.Sprint(i)))
	}
	for _, g := range h.ConsumerGroups {
		out.groups[strings.ToLower(g)] = true
	}
	return out
}

func (h *hub) partition(id string) *partition {
	for _, p := range h.partitions {
		if p.id == id {
			return p
		}
	}
	return nil
}

func (h *hub) ids() []string {
	ids := make([]string, len(h.partitions))
	for i, p := range h.partitions {
		ids[i] = p.id
	}
	return ids
}
