package assembly

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"time"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/pipeline/source/eventhubs"
)

// ErrStarting: the pipeline is being opened or recovers, and takes no new
// configuration yet.
var ErrStarting = errors.New("the pipeline is starting")

// tuneTimeout bounds the wait for shards that are busy.
const tuneTimeout = 30 * time.Second

// Reload takes a new configuration over, of which only what is live has changed; a
// secret may have, too. It is a reload.Hook.
//
// Errors: ErrStarting; hubs that cannot be. Then nothing has changed.
func (s *Server) Reload(_, fresh config.Config) error {
	s.mu.Lock()
	p := s.running
	s.mu.Unlock()
	if p == nil || !p.Engine.Ready() {
		return ErrStarting
	}
	if err := p.reload(fresh); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg = fresh // of the next run
	return nil
}

func (p *Pipeline) reload(fresh config.Config) error {
	if len(fresh.EventHubs) > 0 && len(p.hubs.list()) == 0 {
		return errors.New("eventhubs: the pipeline was started without any: stop it, and start it with them")
	}
	openers, hubs, err := p.hubOpeners(fresh)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), tuneTimeout)
	defer cancel()
	if err := p.Engine.Tune(ctx, fresh.MaxBatchAge, fresh.OutOfOrderness); err != nil {
		return err
	}
	p.hubs.apply(ctx, openers, hubs)
	return nil
}

// apply ends hubs that are not there any more, and those that are read otherwise
// now, and starts what is new. The others go on undisturbed.
func (s *hubSet) apply(ctx context.Context, openers map[string]func() (*eventhubs.Source, error), hubs map[string]Hub) {
	for _, m := range s.list() {
		if fresh, kept := hubs[m.name]; !kept || !m.hub.same(fresh) {
			s.remove(ctx, m.name)
		}
	}
	s.mu.Lock()
	known := maps.Clone(s.members)
	s.mu.Unlock()
	for name, open := range openers {
		if known[name] == nil {
			s.add(name, hubs[name], open)
		}
	}
}

// same says whether two entries read one hub in one way.
func (h Hub) same(other Hub) bool {
	return h.entry == other.entry && h.Config.ConnectionString.Equal(other.Config.ConnectionString)
}

// remove ends a hub, saves how far it was acknowledged, and forgets it.
func (s *hubSet) remove(ctx context.Context, name string) {
	s.mu.Lock()
	m := s.members[name]
	delete(s.members, name)
	s.mu.Unlock()
	if m == nil {
		return
	}
	if m.stop != nil {
		m.stop()
		<-m.done
	}
	if err := m.flush(ctx); err != nil {
		s.log.Warn("checkpoints not saved", slog.String("source", name), slog.Any("cause", err))
	}
	m.replace(nil)
}
