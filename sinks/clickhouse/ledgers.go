package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// ErrForeignRows says that a ledger which is new to the target met rows that it
// did not write.
var ErrForeignRows = errors.New("the table flows has rows, but this ledger never wrote to it")

// RegisterLedger gives the id of the ledger with the random name, registering it
// when the target does not know it. The id is the ledger's for ever; ids begin at 1.
//
// Two processes may register at once: both INSERT a claim, and the first claim of
// an id, in the order in which the server committed them, wins; the other takes
// the next id.
//
// Errors: ErrForeignRows when the ledger is new and the table flows is not empty,
// unless allowForeignRows: an empty ledger would read every blob again from its
// first byte. A count of shards that differs from the registered one is refused.
func (s *Sink) RegisterLedger(ctx context.Context, name string, shards int, allowForeignRows bool) (uint16, error) {
	wrap := func(err error) error { return fmt.Errorf("register ledger %q: %w", name, err) }
	if shards < 1 || shards > pipeline.MaxShards || name == "" || len(name) > 256 {
		return 0, wrap(fmt.Errorf("want a name of 1 to 256 bytes and 1 to %d shards, have %d", pipeline.MaxShards, shards))
	}
	id, err := s.findLedger(ctx, name, shards)
	if err != nil || id != 0 {
		return id, wrapIf(err, wrap)
	}
	if !allowForeignRows {
		if err := s.refuseForeignRows(ctx); err != nil {
			return 0, wrap(err)
		}
	}
	const tries = 64 // Each lost claim means that another ledger got one.
	for range tries {
		if err := s.claim(ctx, name, shards); err != nil {
			return 0, wrap(classifyRead(err))
		}
		if id, err := s.findLedger(ctx, name, shards); err != nil || id != 0 {
			return id, wrapIf(err, wrap)
		}
	}
	return 0, wrap(fmt.Errorf("%w: lost %d claims to others", pipeline.ErrTransient, tries))
}

func wrapIf(err error, wrap func(error) error) error {
	if err == nil {
		return nil
	}
	return wrap(err)
}

// findLedger gives the lowest id whose first claim is the name's; 0 when none is.
// The block number is the order of commits; the table keeps it through merges.
func (s *Sink) findLedger(ctx context.Context, name string, shards int) (uint16, error) {
	type row struct{ Ledger, Shards int }
	found, err := rows[row](ctx, s.client, fmt.Sprintf(
		"SELECT ledger, argMin(shards, _block_number) AS shards FROM %s GROUP BY ledger HAVING argMin(name, _block_number) = %s ORDER BY ledger LIMIT 1",
		s.name(schemas.Ledgers.Name), schemas.QuoteString(name)))
	if err != nil {
		return 0, classifyRead(err)
	}
	if len(found) == 0 {
		return 0, nil
	}
	if found[0].Shards != shards {
		return 0, fmt.Errorf("it was registered with %d shards and has %d: set the number of shards back, or restore the ledger's folder", found[0].Shards, shards)
	}
	return uint16(found[0].Ledger), nil
}

func (s *Sink) refuseForeignRows(ctx context.Context) error {
	if _, ours := s.tables[schemas.Flows.Name]; !ours {
		return nil
	}
	text, err := s.client.exec(ctx, "", "SELECT count() FROM "+s.name(schemas.Flows.Name)+" FORMAT TabSeparated")
	if err != nil {
		return classifyRead(err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return fmt.Errorf("count flows: unexpected answer %q", shorten(text))
	}
	if n > 0 {
		return fmt.Errorf("%w (%d rows in database %q): point to the ledger that wrote them, or use another database",
			ErrForeignRows, n, s.client.config.Database)
	}
	return nil
}

// claim asks for the next free id.
func (s *Sink) claim(ctx context.Context, name string, shards int) error {
	text, err := s.client.exec(ctx, "", "SELECT ifNull(max(ledger), 0) FROM "+s.name(schemas.Ledgers.Name)+" FORMAT TabSeparated")
	if err != nil {
		return err
	}
	last, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		return fmt.Errorf("read the last id: unexpected answer %q", shorten(text))
	}
	if last >= pipeline.MaxLedger {
		return fmt.Errorf("all %d ledger ids are taken: use another database", pipeline.MaxLedger)
	}
	_, err = s.client.exec(ctx, "", fmt.Sprintf("INSERT INTO %s (ledger, name, shards, created) SELECT %d, %s, %d, now64(3)",
		s.name(schemas.Ledgers.Name), last+1, schemas.QuoteString(name), shards), plainSettings...)
	return err
}
