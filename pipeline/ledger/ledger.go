package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/mutant"
)

// Info is what a ledger says about itself. It is written once.
type Info struct {
	Name    string    `json:"name"`    // random, tells two ledgers with one id apart
	ID      uint16    `json:"id"`      // top bits of every batch id; registered in the target
	Shards  int       `json:"shards"`  // changed offline only
	Created time.Time `json:"created"` // for people
	// Start is the earliest hour that is ever read by the live pipeline.
	Start time.Time `json:"start"`
}

// Position is how far a blob is committed.
type Position struct {
	Blob       pipeline.BlobID `json:"blob"`
	Generation uint32          `json:"generation"`
	End        int64           `json:"end"`     // bytes
	Tail       string          `json:"tail"`    // last bytes (at most 16) before End, hex
	Touched    int64           `json:"touched"` // ms UTC, when a unit was last added
}

// StreamTime is how far a stream's event time has come.
type StreamTime struct {
	Stream  string `json:"stream"`
	MaxTime int64  `json:"max_time"` // ms UTC
}

// Base is the state of a shard after one batch: with the manifests behind it,
// all that recovery needs.
type Base struct {
	Shard     int                `json:"shard"`
	Seq       uint64             `json:"seq"`
	Watermark pipeline.Watermark `json:"watermark"`
	Positions []Position         `json:"positions"` // sorted by blob
	Streams   []StreamTime       `json:"streams"`   // sorted by stream
	Operators [][]byte           `json:"operators"` // Snapshot of each operator, in order
}

// State is what recovery found of one shard.
type State struct {
	Base      Base
	Manifests []pipeline.Manifest // behind the base, in order, no gap
	DoneSeq   uint64              // every batch up to here has landed
	// Warnings tell of damage that was stepped around.
	Warnings []string
}

// NextSeq is the sequence number of the next batch.
func (s State) NextSeq() uint64 {
	if mutant.On(mutant.SequenceReused) {
		return s.DoneSeq + 1
	}
	return s.Base.Seq + uint64(len(s.Manifests)) + 1
}

// Ledger is one pipeline's ledger.
type Ledger struct {
	store Store
	info  Info
	epoch uint64
	kept  kept
}

// Register tells the target of a ledger, and gives the id that it knows it by.
type Register func(ctx context.Context, name string, shards int) (uint16, error)

type nameObject struct{ Name string }

type epochObject struct {
	Epoch uint64 `json:"epoch"`
}

type headObject struct {
	DoneSeq uint64 `json:"done_seq"`
}

// Open reads the ledger in store and takes it over under a new epoch. In an empty
// store it makes a new ledger: register is called with its name and gives the id
// that the target knows it by.
func Open(ctx context.Context, store Store, fresh Info, register Register) (*Ledger, error) {
	return openFolder(ctx, store, fresh, register, false)
}

// OpenToReshard is Open, or OpenOwned where there is a lease, between BeginReshard
// and FinishReshard: nobody else opens the ledger then.
func OpenToReshard(ctx context.Context, store Store, lease *Lease, register Register) (*Ledger, error) {
	if lease != nil {
		l := &Ledger{store: lease.store, epoch: lease.Epoch()}
		return l, l.open(ctx, Info{}, register, true)
	}
	return openFolder(ctx, store, Info{}, register, true)
}

func openFolder(ctx context.Context, store Store, fresh Info, register Register, resharding bool) (*Ledger, error) {
	l := &Ledger{store: store}
	if err := l.open(ctx, fresh, register, resharding); err != nil {
		return nil, err
	}
	if err := l.respectClaim(ctx); err != nil {
		return nil, err
	}
	var e epochObject
	if err := l.get(ctx, "epoch", "epoch", &e); err != nil && !errors.Is(err, ErrNotExist) {
		return nil, err
	}
	l.epoch = e.Epoch + 1
	if mutant.On(mutant.EpochKept) {
		l.epoch = e.Epoch
	}
	return l, l.put(ctx, "epoch", "epoch", epochObject{Epoch: l.epoch})
}

// OpenOwned is Open for the owner of a shared ledger, under the epoch of its lease.
func OpenOwned(ctx context.Context, lease *Lease, fresh Info, register Register) (*Ledger, error) {
	l := &Ledger{store: lease.store, epoch: lease.Epoch()}
	return l, l.open(ctx, fresh, register, false)
}

// open reads what the ledger is, or makes it, and what it keeps of transforms.
func (l *Ledger) open(ctx context.Context, fresh Info, register Register, resharding bool) error {
	if m, err := l.marker(ctx); err != nil {
		return err
	} else if m != nil && !resharding {
		return fmt.Errorf("open ledger: %w to %d, which was interrupted: run millrace ledger reshard --shards %d --yes", ErrResharding, m.To, m.To)
	}
	if err := l.readInfo(ctx, fresh, register); err != nil {
		return err
	}
	return l.findKept(ctx)
}

func (l *Ledger) readInfo(ctx context.Context, fresh Info, register Register) error {
	err := l.get(ctx, "info", "info", &l.info)
	switch {
	case errors.Is(err, ErrNotExist):
		l.info = fresh
		return l.create(ctx, register)
	case err != nil:
		return err
	}
	// Registering again is how a ledger sees that the target still knows it.
	id, err := register(ctx, l.info.Name, l.info.Shards)
	if err != nil {
		return err
	}
	if id != l.info.ID {
		return fmt.Errorf("open ledger %q: it has id %d, but the target knows it as %d: this ledger belongs to another target", l.info.Name, l.info.ID, id)
	}
	return nil
}

// OneLedger registers a ledger under an id with a target that no other ledger writes
// to, and that keeps no list of ledgers.
func OneLedger(id uint16) Register {
	return func(context.Context, string, int) (uint16, error) { return id, nil }
}

func (l *Ledger) create(ctx context.Context, register Register) error {
	if l.info.Shards < 1 || l.info.Shards > pipeline.MaxShards {
		return fmt.Errorf("create ledger: %d shards, want 1 to %d", l.info.Shards, pipeline.MaxShards)
	}
	// The name is durable before the target learns it, so that a crash in between
	// finds the same name and gets the same id.
	var n nameObject
	err := l.get(ctx, "name", "name", &n)
	if errors.Is(err, ErrNotExist) {
		n.Name = rand.Text()
		err = l.put(ctx, "name", "name", n)
	}
	if err != nil {
		return err
	}
	l.info.Name = n.Name
	if l.info.ID, err = register(ctx, l.info.Name, l.info.Shards); err != nil {
		return err
	}
	data, err := encode("info", l.info)
	if err != nil {
		return err
	}
	return l.store.Create(ctx, "info", data)
}

// Info tells what the ledger is.
func (l *Ledger) Info() Info { return l.info }

// Epoch is higher than that of every earlier owner.
func (l *Ledger) Epoch() uint64 { return l.epoch }

// get reads an object that the ledger cannot do without.
func (l *Ledger) get(ctx context.Context, name, kind string, v any) error {
	return mend(l.look(ctx, name, kind, v))
}

// look reads an object whose damage can be stepped around.
func (l *Ledger) look(ctx context.Context, name, kind string, v any) error {
	data, err := l.store.Get(ctx, name)
	if err != nil {
		return err
	}
	if err := decode(kind, data, v); err != nil {
		return fmt.Errorf("ledger object %q: %w", name, err)
	}
	return nil
}

func (l *Ledger) put(ctx context.Context, name, kind string, v any) error {
	data, err := encode(kind, v)
	if err != nil {
		return err
	}
	return l.store.Put(ctx, name, data)
}

func folder(shard int, kind string) string { return fmt.Sprintf("%03d/%s/", shard, kind) }

func object(shard int, kind string, seq uint64) string {
	return fmt.Sprintf("%s%011d", folder(shard, kind), seq)
}

// WriteManifest makes a batch's intent durable. The creator of a sequence number
// wins: ErrExists says that another owner was first. ErrClaimed: see Claim.
func (l *Ledger) WriteManifest(ctx context.Context, m pipeline.Manifest) error {
	data, err := encode("manifest", m)
	if err != nil {
		return err
	}
	return l.createManifest(ctx, m, data)
}

// WriteHead makes it durable that every batch up to doneSeq has landed.
func (l *Ledger) WriteHead(ctx context.Context, shard int, doneSeq uint64) error {
	return l.put(ctx, fmt.Sprintf("%03d/head", shard), "head", headObject{DoneSeq: doneSeq})
}

// WriteBase makes a state durable and prunes what it replaces. The base before it
// and the manifests behind that one stay, so that a damaged base loses nothing.
func (l *Ledger) WriteBase(ctx context.Context, b Base) error {
	data, err := encode("base", b)
	if err != nil {
		return err
	}
	if err := l.store.Put(ctx, object(b.Shard, "base", b.Seq), data); err != nil {
		return err
	}
	return l.prune(ctx, b.Shard)
}

func (l *Ledger) prune(ctx context.Context, shard int) error {
	bases, err := l.sequences(ctx, shard, "base")
	if err != nil || len(bases) < 2 {
		return err
	}
	keep := bases[len(bases)-2]
	manifests, err := l.sequences(ctx, shard, "m")
	if err != nil {
		return err
	}
	for _, seq := range manifests {
		if seq > keep && !mutant.On(mutant.PruneAll) {
			break
		}
		if err := l.store.Delete(ctx, object(shard, "m", seq)); err != nil {
			return err
		}
	}
	for _, seq := range bases[:len(bases)-2] {
		if err := l.store.Delete(ctx, object(shard, "base", seq)); err != nil {
			return err
		}
	}
	return l.pruneKept(ctx, shard, keep)
}

func (l *Ledger) sequences(ctx context.Context, shard int, kind string) ([]uint64, error) {
	prefix := folder(shard, kind)
	names, err := l.store.List(ctx, prefix)
	if err != nil {
		return nil, err
	}
	seqs := make([]uint64, 0, len(names))
	for _, name := range names {
		seq, err := strconv.ParseUint(name[len(prefix):], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("ledger object %q: its name is no sequence number: remove the foreign file", name)
		}
		seqs = append(seqs, seq)
	}
	return seqs, nil
}

// Recover reads the state of a shard: the newest base that is whole, and the
// manifests behind it.
func (l *Ledger) Recover(ctx context.Context, shard int) (State, error) {
	var s State
	bases, err := l.sequences(ctx, shard, "base")
	if err != nil {
		return s, err
	}
	s.Base.Shard = shard
	var damage error
	for i := len(bases) - 1; i >= 0; i-- {
		var b Base
		err := l.look(ctx, object(shard, "base", bases[i]), "base", &b)
		if err == nil {
			s.Base = b
			break
		}
		if !damaged(err) {
			return s, err
		}
		damage = err
		s.Warnings = append(s.Warnings, fmt.Sprintf("%v: going back to the state before it", err))
	}
	if err := l.manifests(ctx, shard, &s); err != nil {
		return s, err
	}
	if n := len(bases); n > 0 && s.NextSeq() <= bases[n-1] {
		// A ledger that was made again, or resharded, has one base and nothing before it.
		return s, fmt.Errorf("recover shard %d: no state before batch %d to go back to: %w", shard, bases[n-1], mend(damage))
	}
	l.kept.recovered(shard, s.NextSeq()-1)
	return s, l.done(ctx, shard, &s)
}

func (l *Ledger) manifests(ctx context.Context, shard int, s *State) error {
	seqs, err := l.sequences(ctx, shard, "m")
	if err != nil {
		return err
	}
	next := s.Base.Seq + 1
	for _, seq := range seqs {
		if seq < next {
			continue
		}
		if seq != next {
			return fmt.Errorf("recover shard %d: manifest %d is missing, the next one is %d: %s", shard, next, seq, wayOut)
		}
		var m pipeline.Manifest
		if err := l.get(ctx, object(shard, "m", seq), "manifest", &m); err != nil {
			return err
		}
		s.Manifests = append(s.Manifests, m)
		next++
	}
	return nil
}

// done finds how far the shard has landed: a base is written behind its batch, a
// manifest and the head carry the mark.
func (l *Ledger) done(ctx context.Context, shard int, s *State) error {
	s.DoneSeq = s.Base.Seq
	for _, m := range s.Manifests {
		s.DoneSeq = max(s.DoneSeq, m.DoneSeq)
		if mutant.On(mutant.IntentIsDone) {
			s.DoneSeq = m.Seq
		}
	}
	var h headObject
	err := l.look(ctx, fmt.Sprintf("%03d/head", shard), "head", &h)
	switch {
	case err == nil:
		s.DoneSeq = max(s.DoneSeq, h.DoneSeq)
	case errors.Is(err, ErrNotExist):
	case damaged(err):
		// The mark only saves probes: without it every batch behind the base is probed.
		s.Warnings = append(s.Warnings, err.Error()+": probing what it covered")
	default:
		return err
	}
	return nil
}
