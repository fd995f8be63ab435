// Package topic is a model of a Kafka cluster for the simulation: writers with
// transactions, with and without KIP-890 (transaction.version 2), and a reader of what
// is committed.
//
// What flows in: the requests of writers, one after the other; whoever holds the
// cluster lets them come late, twice or never. What flows out: answers, and the
// committed records in their order.
package topic

import "errors"

// Errors of requests.
var (
	// ErrFenced: another writer has begun under the transactional id.
	ErrFenced = errors.New("the producer is fenced")
	// ErrState: there is no transaction to end.
	ErrState = errors.New("invalid transaction state")
)

// Record is one record; its key says what it is.
type Record struct{ Key, Value string }

// Producer is what a writer got when it began.
type Producer struct {
	ID    string // transactional
	Epoch int
}

// Cluster is one cluster. The zero value is none: see New.
type Cluster struct {
	bumps     bool
	writers   map[string]*writer
	committed []Record
	latest    map[string]string
}

type writer struct {
	epoch int
	open  []Record
	begun bool
	// ended is how the last transaction ended, for a request that comes again.
	ended, commit bool
}

// New gives an empty cluster. With bumps every end of a transaction raises the
// producer's epoch (KIP-890), so that no request of an earlier transaction can touch a
// later one.
func New(bumps bool) *Cluster {
	return &Cluster{bumps: bumps, writers: map[string]*writer{}, latest: map[string]string{}}
}

func (c *Cluster) writer(id string) *writer {
	w := c.writers[id]
	if w == nil {
		w = &writer{}
		c.writers[id] = w
	}
	return w
}

// Init begins to write under the id: the open transaction of whoever wrote before is
// aborted, and that writer is shut out.
func (c *Cluster) Init(id string) Producer {
	w := c.writer(id)
	w.abort()
	w.epoch++
	return Producer{id, w.epoch}
}

func (w *writer) abort() { w.open, w.begun, w.ended = nil, false, false }

// Expire aborts an open transaction that has taken too long, and shuts its writer out.
func (c *Cluster) Expire(id string) bool {
	w := c.writer(id)
	if !w.begun {
		return false
	}
	c.Init(id)
	return true
}

// Send adds records to the open transaction, or begins one.
func (c *Cluster) Send(p Producer, records ...Record) error {
	w := c.writer(p.ID)
	if p.Epoch != w.epoch {
		return ErrFenced
	}
	w.open, w.begun, w.ended = append(w.open, records...), true, false
	return nil
}

// End ends the open transaction, and gives the producer that goes on. A request that
// comes again is answered as the first one.
//
// Without KIP-890 an old request ends whatever transaction is open under its epoch.
func (c *Cluster) End(p Producer, commit bool) (Producer, error) {
	w := c.writer(p.ID)
	again := w.ended && w.commit == commit && !w.begun
	switch {
	case c.bumps && p.Epoch == w.epoch-1 && again:
		return Producer{p.ID, w.epoch}, nil
	case p.Epoch != w.epoch:
		return p, ErrFenced
	case again && !c.bumps:
		return p, nil
	case !w.begun:
		return p, ErrState
	}
	if commit {
		c.committed = append(c.committed, w.open...)
		for _, r := range w.open {
			c.latest[r.Key] = r.Value
		}
	}
	w.abort()
	w.ended, w.commit = true, commit
	if c.bumps {
		w.epoch++
	}
	return Producer{p.ID, w.epoch}, nil
}

// Committed gives the records of committed transactions, in order.
func (c *Cluster) Committed() []Record { return c.committed }

// Latest gives the newest committed value of a key, "" when there is none.
func (c *Cluster) Latest(key string) string { return c.latest[key] }
