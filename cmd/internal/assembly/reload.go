package assembly

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/pipeline/announce"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/source/eventhubs"
)

// ErrStarting: the pipeline is being opened or recovers, and takes no new
// configuration yet.
var ErrStarting = errors.New("the pipeline is starting")

// tuneTimeout bounds the wait for shards that are busy.
const tuneTimeout = 30 * time.Second

// Reload takes a new configuration over, of which only what is live has changed; a
// secret may have, too. It is a reload.Hook. An instance that stands by keeps it for
// when it becomes the owner.
//
// Errors: ErrStarting; what cannot be in a running pipeline, with the reason. Then
// nothing has changed.
func (s *Server) Reload(old, fresh config.Config) error {
	renewLedger, err := s.renewLedger(fresh)
	if err != nil {
		return err
	}
	if s.keepForLater(fresh) {
		renewLedger()
		return nil
	}
	s.mu.Lock()
	p := s.running
	s.mu.Unlock()
	if p == nil || !p.Engine.Ready() {
		return ErrStarting
	}
	if err := p.reload(old, fresh); err != nil {
		return err
	}
	renewLedger()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg = fresh // of the next run
	return nil
}

// keepForLater says whether this instance stands by; then its next run has the
// configuration.
func (s *Server) keepForLater(fresh config.Config) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.Role != Standby {
		return false
	}
	s.cfg = fresh
	return true
}

// renewLedger makes the client of a shared ledger anew.
func (s *Server) renewLedger(fresh config.Config) (apply func(), err error) {
	if s.store == nil {
		return func() {}, nil
	}
	account, err := ledgerAccount(fresh)
	if err != nil {
		return nil, err
	}
	apply, err = s.store.Renew(account)
	return apply, prefixed(err, "ledger.azure")
}

// reload looks at everything first, and changes something when nothing can be wrong
// any more. Requests under way end with the credential that they began with.
func (p *Pipeline) reload(old, fresh config.Config) error {
	if len(fresh.EventHubs) > 0 && (p.hubs == nil || len(p.hubs.list()) == 0) {
		return errors.New("eventhubs: the pipeline was started without any: stop it, and start it with them")
	}
	openers, hubs, err := p.hubOpeners(fresh)
	if err != nil {
		return err
	}
	renewAccounts, err := p.renewAccounts(old, fresh)
	if err != nil {
		return err
	}
	renewTarget, err := p.renewTarget(fresh)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), tuneTimeout)
	defer cancel()
	if err := p.Engine.Tune(ctx, fresh.MaxBatchAge, fresh.OutOfOrderness); err != nil {
		return err
	}
	renewAccounts()
	renewTarget()
	if p.hubs != nil {
		p.hubs.apply(ctx, openers, hubs)
	}
	return nil
}

// renewTarget gives ClickHouse, if rows land there, the password as it is now.
func (p *Pipeline) renewTarget(fresh config.Config) (apply func(), err error) {
	if p.Sink == nil {
		return func() {}, nil
	}
	target, err := fresh.ClickHouse.Target()
	if err != nil {
		return nil, err
	}
	apply, err = p.Sink.Renew(target.Password)
	return apply, prefixed(err, "clickhouse.password")
}

// renewAccounts takes storage accounts over: further ones, further containers, other
// credentials, and how often they are listed. Announcements of what is new are let
// through once the reader can read it.
func (p *Pipeline) renewAccounts(old, fresh config.Config) (apply func(), err error) {
	if p.store == nil {
		return func() {}, nil
	}
	if err := errors.Join(nothingGone(old, fresh), switchedSweeper(old, fresh)); err != nil {
		return nil, err
	}
	accounts, changed, err := p.changedAccounts(old, fresh)
	if err != nil {
		return nil, err
	}
	renewStore, err := p.store.Renew(changed)
	if err != nil {
		return nil, prefixed(err, "accounts")
	}
	parser, err := announce.New(announceAccounts(fresh))
	if err != nil {
		return nil, prefixed(err, "accounts")
	}
	renewSweeps := func() {}
	all := containers(fresh)
	if p.sweeps != nil && (old.Sweeper != fresh.Sweeper || !slices.Equal(containers(old), all)) {
		if renewSweeps, err = p.sweeps.Renew(fresh.Sweeper.Interval, fresh.Sweeper.Discover, all); err != nil {
			return nil, err
		}
	}
	return func() {
		p.accounts = accounts
		renewStore()
		p.parser.Store(parser)
		renewSweeps()
	}, nil
}

// changedAccounts resolves all accounts, and gives those that are new or are read
// otherwise now. One that stays keeps its connections, and its tokens.
func (p *Pipeline) changedAccounts(old, fresh config.Config) (all, changed []blob.AccountConfig, err error) {
	all, err = storageAccounts(fresh)
	if err != nil {
		return nil, nil, err
	}
	for i, a := range fresh.Accounts {
		was := slices.IndexFunc(old.Accounts, func(o config.Account) bool { return o.Name == a.Name })
		now := slices.IndexFunc(p.accounts, func(c blob.AccountConfig) bool { return c.Name == a.Name })
		if was >= 0 && now >= 0 && sameAccess(old.Accounts[was], a, p.accounts[now], all[i]) {
			all[i] = p.accounts[now]
			continue
		}
		changed = append(changed, all[i])
	}
	return all, changed, nil
}

// sameAccess says whether two entries read an account in one way.
func sameAccess(a, b config.Account, x, y blob.AccountConfig) bool {
	a.Containers, a.Aliases = b.Containers, b.Aliases
	return reflect.DeepEqual(a, b) && x.SharedKey.Equal(y.SharedKey) && x.SAS.Equal(y.SAS) && x.ConnectionString.Equal(y.ConnectionString)
}

// nothingGone refuses to let go of blobs that shards may be about to read.
func nothingGone(old, fresh config.Config) error {
	var faults []error
	left := containers(fresh)
	for _, c := range containers(old) {
		if !slices.Contains(left, c) {
			faults = append(faults, fmt.Errorf("accounts: container %q of account %q is gone, and some of its blobs may be announced and not landed yet: stop the pipeline, and start it without", c.Container, c.Account))
		}
	}
	return errors.Join(faults...)
}

// switchedSweeper refuses to switch the sweeper on or off.
func switchedSweeper(old, fresh config.Config) error {
	if (old.Sweeper.Interval == 0) == (fresh.Sweeper.Interval == 0) {
		return nil
	}
	return errors.New("sweeper.interval: a running pipeline cannot switch the sweeper on or off: stop it, and start it with the new value")
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
