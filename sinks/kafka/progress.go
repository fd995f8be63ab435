package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/zeebo/xxh3"

	"github.com/millrace/millrace/pipeline"
)

// progressVersion is that of the records of the progress topic. A later one is
// refused.
const progressVersion = 1

// remembered is how many landed batches a progress record names one by one. It is
// far more than a shard has between intent and done (shard.Config.MaxInFlight), so
// every batch before them has landed, or had no rows for this sink.
const remembered = 64

// progress is what is known of one shard. It is the value of a record of the
// progress topic, whose key is progressKey.
type progress struct {
	Version int    `json:"version"`
	Epoch   uint64 `json:"epoch"`
	// Before says that every batch before it has landed or had nothing to land.
	Before uint64      `json:"before"`
	Landed []landedRef `json:"landed"` // from Before on, sorted
}

// landedRef is one batch that has landed.
type landedRef struct {
	Seq  uint64 `json:"seq"`
	Rows int64  `json:"rows"`
	Hash string `json:"hash"` // of the piece's reference
}

// hashRef tells one piece from another: the sink's own name, which the configuration
// gives, is not part of it.
func hashRef(ref pipeline.PieceRef) string {
	ref.Sink = ""
	text, err := json.Marshal(ref)
	if err != nil {
		panic("BUG: a reference does not encode: " + err.Error())
	}
	return fmt.Sprintf("%016x", xxh3.Hash(text))
}

// find gives the rows of the batch that are there.
//
// Errors: rows are there under the batch's number that are not the piece's.
func (p progress) find(seq uint64, ref pipeline.PieceRef) (int64, error) {
	i, found := slices.BinarySearchFunc(p.Landed, seq, func(l landedRef, seq uint64) int {
		switch {
		case l.Seq < seq:
			return -1
		case l.Seq > seq:
			return 1
		}
		return 0
	})
	switch {
	case found && p.Landed[i].Hash != hashRef(ref):
		return 0, fmt.Errorf("the progress topic says that batch %d of the shard landed as other rows (%d, not %d): another ledger wrote under this one's id, so use another progress topic", seq, p.Landed[i].Rows, ref.Rows)
	case found:
		return p.Landed[i].Rows, nil
	case seq < p.Before:
		return ref.Rows, nil
	}
	return 0, nil
}

// done says whether the batch needs not land any more.
func (p progress) done(seq uint64) bool {
	return seq < p.Before || slices.ContainsFunc(p.Landed, func(l landedRef) bool { return l.Seq == seq })
}

// with gives the progress after one more batch.
func (p progress) with(epoch, seq uint64, ref pipeline.PieceRef) progress {
	p.Version, p.Epoch = progressVersion, max(p.Epoch, epoch)
	i, _ := slices.BinarySearchFunc(p.Landed, seq, func(l landedRef, seq uint64) int {
		if l.Seq < seq {
			return -1
		}
		return 1
	})
	p.Landed = slices.Insert(slices.Clone(p.Landed), i, landedRef{Seq: seq, Rows: ref.Rows, Hash: hashRef(ref)})
	if over := len(p.Landed) - remembered; over > 0 {
		p.Before = p.Landed[over-1].Seq + 1
		p.Landed = p.Landed[over:]
	}
	return p
}

// Keys of the progress topic.
const (
	shardPrefix  = "shard/"
	ledgerPrefix = "ledger/"
)

func progressKey(ledger uint16, shard int) string {
	return fmt.Sprintf("%s%d/%d", shardPrefix, ledger, shard)
}

// ledgerEntry registers a ledger: the value of a record of the progress topic, whose
// key is ledgerKey.
type ledgerEntry struct {
	Version int    `json:"version"`
	ID      uint16 `json:"id"`
	Name    string `json:"name"`
	Shards  int    `json:"shards"`
}

func ledgerKey(id uint16) string { return fmt.Sprintf("%s%d", ledgerPrefix, id) }

// progressReader follows the progress topic. It keeps the newest committed value of
// each key, which are few: one for each shard and ledger.
//
// It reads every record and takes part in no transaction but watches them: what a
// writer wrote counts when the record that ends its transaction says so. A reader of
// committed records would not do. It is shown nothing behind the first transaction
// that is open, whosever that is:
//
//	shard 2            writes its progress, begins a transaction
//	shard 1            lands a batch: its progress is behind that of shard 2
//	the process        is killed
//	shard 1, again     begins to write, which ends its own old transaction, and asks
//	                   what has landed. The old transaction of shard 2 is still open:
//	                   the progress of shard 1 is hidden, and its batch would land twice.
type progressReader struct {
	topic  string
	client *kgo.Client
	admin  *kadm.Client

	mu      sync.Mutex
	next    map[int32]int64 // offset behind what was read
	open    map[writing][]*kgo.Record
	shards  map[string]progress
	ledgers map[uint16]ledgerEntry
}

// writing names a transaction that is not over: a producer has one at a time.
type writing struct {
	partition int32
	producer  int64
}

func newProgressReader(topic string, options []kgo.Opt) (*progressReader, error) {
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadUncommitted()),
		kgo.KeepControlRecords(), // the ends of transactions
	}, options...)...)
	if err != nil {
		return nil, err
	}
	return &progressReader{
		topic: topic, client: client, admin: kadm.NewClient(client),
		next: map[int32]int64{}, open: map[writing][]*kgo.Record{}, shards: map[string]progress{}, ledgers: map[uint16]ledgerEntry{},
	}, nil
}

func (r *progressReader) close() { r.client.Close() }

// shard gives what all transactions that are committed by now say of a shard, whose
// writers have the transactional id.
func (r *progressReader) shard(ctx context.Context, id string, ledger uint16, shard int) (progress, error) {
	if err := r.settled(ctx, id); err != nil {
		return progress{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.toTheEnd(ctx); err != nil {
		return progress{}, fmt.Errorf("read progress topic %q: %w", r.topic, err)
	}
	return r.shards[progressKey(ledger, shard)], nil
}

// registered gives the ledgers that the topic knows, and whether any has landed rows.
func (r *progressReader) registered(ctx context.Context) (ledgers map[uint16]ledgerEntry, landed bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.toTheEnd(ctx); err != nil {
		return nil, false, fmt.Errorf("read progress topic %q: %w", r.topic, err)
	}
	for _, p := range r.shards {
		landed = landed || len(p.Landed) > 0
	}
	ledgers = map[uint16]ledgerEntry{}
	for id, e := range r.ledgers {
		ledgers[id] = e
	}
	return ledgers, landed, nil
}

// settlePause is how long the brokers are left alone between two questions.
const settlePause = 5 * time.Millisecond

// settled waits until a transaction that is decided has ended. A commit is answered
// when it is decided; the partitions learn of it a moment later, and until then no
// reader sees it. Whoever begins to write as the id waits for the same.
func (r *progressReader) settled(ctx context.Context, id string) error {
	for {
		described, err := r.admin.DescribeTransactions(ctx, id)
		if err == nil {
			err = described[id].Err
		}
		switch {
		case errors.Is(err, kerr.TransactionalIDNotFound), errors.Is(err, kerr.UnsupportedVersion):
			return nil // nothing was ever written; or brokers before 3.0, which do not tell
		case err != nil:
			return fmt.Errorf("ask for the transaction %q: %w", id, classify(err))
		}
		if state := described[id].State; state != "PrepareCommit" && state != "PrepareAbort" {
			return nil
		}
		select {
		case <-time.After(settlePause):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", pipeline.ErrTransient, context.Cause(ctx))
		}
	}
}

// toTheEnd reads up to where the topic's end is now.
func (r *progressReader) toTheEnd(ctx context.Context) error {
	ends, err := r.admin.ListEndOffsets(ctx, r.topic)
	if err == nil {
		err = ends.Error()
	}
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		// It was there at the start: a broker that has just begun has not heard of it.
		return fmt.Errorf("%w: %w", pipeline.ErrTransient, err)
	}
	if err != nil {
		return classify(err)
	}
	behind := func() bool {
		for _, end := range ends[r.topic] {
			if r.next[end.Partition] < end.Offset {
				return true
			}
		}
		return false
	}
	for behind() {
		fetches := r.client.PollFetches(ctx)
		for _, e := range fetches.Errors() {
			return classify(e.Err)
		}
		var faults []error
		fetches.EachRecord(func(rec *kgo.Record) {
			r.next[rec.Partition] = rec.Offset + 1
			faults = append(faults, r.take(rec))
		})
		if err := errors.Join(faults...); err != nil {
			return err
		}
	}
	return nil
}

// take keeps a record until its transaction ends, and applies it if that was
// committed.
func (r *progressReader) take(rec *kgo.Record) error {
	w := writing{rec.Partition, rec.ProducerID}
	switch {
	case !rec.Attrs.IsControl() && rec.Attrs.IsTransactional():
		r.open[w] = append(r.open[w], rec)
		return nil
	case !rec.Attrs.IsControl():
		return r.apply(string(rec.Key), rec.Value)
	}
	ended := r.open[w]
	delete(r.open, w)
	var key kmsg.ControlRecordKey
	if err := key.ReadFrom(rec.Key); err != nil {
		return fmt.Errorf("end of a transaction at offset %d: %w", rec.Offset, err)
	}
	if key.Type != kmsg.ControlRecordKeyTypeCommit {
		return nil
	}
	var faults []error
	for _, rec := range ended {
		faults = append(faults, r.apply(string(rec.Key), rec.Value))
	}
	return errors.Join(faults...)
}

// apply takes one record in. What it does not know, a later release wrote.
func (r *progressReader) apply(key string, value []byte) error {
	decode := func(v any, version *int) error {
		if err := json.Unmarshal(value, v); err != nil {
			return fmt.Errorf("record %q: %w: the topic is not a progress topic, or is damaged", key, err)
		}
		if *version != progressVersion {
			return fmt.Errorf("record %q has version %d, want %d: start the release that wrote it", key, *version, progressVersion)
		}
		return nil
	}
	switch {
	case strings.HasPrefix(key, shardPrefix):
		var p progress
		if err := decode(&p, &p.Version); err != nil {
			return err
		}
		r.shards[key] = p
	case strings.HasPrefix(key, ledgerPrefix):
		var e ledgerEntry
		if err := decode(&e, &e.Version); err != nil {
			return err
		}
		r.ledgers[e.ID] = e
	default:
		return fmt.Errorf("record %q is none of ours: give the progress a topic of its own", key)
	}
	return nil
}
