package emulator

import "sync/atomic"

type counters struct {
	connections, refused                   atomic.Int64
	eventsIn, bytesIn, eventsOut, bytesOut atomic.Int64
	rejected, stolen                       atomic.Int64
}

// Stats is what the server did since it was made and what it holds now.
type Stats struct {
	Connections        int   // now
	ConnectionsTotal   int64 // ever
	ConnectionsRefused int64 // above the limit
	EventsIn, BytesIn  int64 // stored; bytes without overhead
	EventsOut          int64 // written to receivers, each time counted
	BytesOut           int64
	EventsExpired      int64 // forgotten by retention
	EventsKept         int64 // now
	BytesKept          int64 // now, with 128 bytes for each event
	MessagesRejected   int64
	LinksStolen        int64
}

// Stats gives the counters.
func (s *Server) Stats() Stats {
	st := Stats{
		ConnectionsTotal: s.stats.connections.Load(), ConnectionsRefused: s.stats.refused.Load(),
		EventsIn: s.stats.eventsIn.Load(), BytesIn: s.stats.bytesIn.Load(),
		EventsOut: s.stats.eventsOut.Load(), BytesOut: s.stats.bytesOut.Load(),
		MessagesRejected: s.stats.rejected.Load(), LinksStolen: s.stats.stolen.Load(),
	}
	s.mu.Lock()
	st.Connections = len(s.conns)
	s.mu.Unlock()
	for _, h := range s.hubs {
		for _, p := range h.partitions {
			p.mu.Lock()
			st.EventsKept += int64(len(p.events) - p.head)
			st.BytesKept += p.bytes
			st.EventsExpired += p.expired
			p.mu.Unlock()
		}
	}
	return st
}
