package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/zeebo/xxh3"

	"github.com/millrace/millrace/pipeline"
)

// ErrForeignRows says that a ledger which is new to the progress topic met batches
// of others in it.
var ErrForeignRows = errors.New("the progress topic has batches, but this ledger never wrote to it")

// RegisterLedger gives the id of the ledger with the random name, registering it
// when the progress topic does not know it. The id is the ledger's for ever; ids
// begin at 1. given, when not 0, is the id that another target knows the ledger by:
// it is taken here too, or refused.
//
// Registrations have a transactional id of their own: who reads after beginning to
// write as that id knows every ledger there will be until its own is committed.
//
// Errors: ErrForeignRows when the ledger is new and others have landed, unless
// allowForeignRows: an empty ledger would read every blob again from its first byte.
// A count of shards that differs from the registered one is refused.
func (s *Sink) RegisterLedger(ctx context.Context, name string, shards int, given uint16, allowForeignRows bool) (uint16, error) {
	wrap := func(err error) error {
		return fmt.Errorf("register ledger %q in topic %q: %w", name, s.config.ProgressTopic, err)
	}
	if shards < 1 || shards > pipeline.MaxShards || name == "" || len(name) > 256 {
		return 0, wrap(fmt.Errorf("want a name of 1 to 256 bytes and 1 to %d shards, have %d", pipeline.MaxShards, shards))
	}
	x, err := begin(ctx, s.config, s.options, s.transactionalID("ledgers"))
	if err != nil {
		return 0, wrap(err)
	}
	defer x.close()
	bounded, cancel := s.config.bounded(ctx)
	defer cancel()
	known, landed, err := s.progress.registered(bounded)
	if err != nil {
		return 0, wrap(err)
	}
	entry, isNew, err := admitLedger(known, name, shards, given)
	if err != nil {
		return 0, wrap(err)
	}
	if !isNew {
		return entry.ID, nil
	}
	if landed && !allowForeignRows {
		return 0, wrap(fmt.Errorf("%w: point to the ledger that wrote them, or use other topics and another progress topic", ErrForeignRows))
	}
	value, err := json.Marshal(entry)
	if err != nil {
		return 0, wrap(err)
	}
	err = x.run(ctx, func(emit func(*kgo.Record) error) error {
		return emit(&kgo.Record{Topic: s.config.ProgressTopic, Key: []byte(ledgerKey(entry.ID)), Value: value})
	})
	if errors.Is(err, errShutOut) || errors.Is(err, pipeline.ErrInDoubt) {
		// The next try finds out whether it is there.
		err = fmt.Errorf("%w: %w", pipeline.ErrTransient, err)
	}
	if err != nil {
		return 0, wrap(err)
	}
	return entry.ID, nil
}

// admitLedger finds the ledger among those known, or gives it an id.
func admitLedger(known map[uint16]ledgerEntry, name string, shards int, given uint16) (entry ledgerEntry, isNew bool, err error) {
	last := uint16(0)
	for _, e := range known {
		last = max(last, e.ID)
		if e.Name != name {
			continue
		}
		switch {
		case e.Shards != shards:
			return e, false, fmt.Errorf("it was registered with %d shards and has %d: set the number of shards back, or restore the ledger's folder", e.Shards, shards)
		case given != 0 && e.ID != given:
			return e, false, fmt.Errorf("it has id %d here and id %d in another target: use another progress topic", e.ID, given)
		}
		return e, false, nil
	}
	entry = ledgerEntry{Version: progressVersion, ID: given, Name: name, Shards: shards}
	if given == 0 {
		if last == pipeline.MaxLedger {
			return entry, false, fmt.Errorf("all %d ledger ids are taken: use another progress topic", pipeline.MaxLedger)
		}
		entry.ID = last + 1
	} else if other, taken := known[given]; taken {
		return entry, false, fmt.Errorf("its id %d belongs to ledger %q here, which has another target beside this one: use another progress topic", given, other.Name)
	}
	return entry, true, nil
}

// RegisterLedger gives an id that depends on the ledger's name alone: without
// transactions, and on brokers that keep nothing for ever, there is nowhere to
// register. Two ledgers have the same id once in 65,535 times; readers that drop
// what they know by batch_id then need topics of their own for each.
func (s *AtLeastOnce) RegisterLedger(_ context.Context, name string, _ int, given uint16, _ bool) (uint16, error) {
	if given != 0 {
		return given, nil
	}
	return uint16(xxh3.HashString(name)%pipeline.MaxLedger) + 1, nil
}
