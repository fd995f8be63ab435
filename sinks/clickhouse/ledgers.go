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
// the next id. In a cluster the first server by name decides, and all others get a
// copy, so that no server's loss and no change of the list loses an id.
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
	if err == nil && id == 0 && !allowForeignRows {
		for _, n := range s.nodes {
			err = errors.Join(err, n.says(n.refuseForeignRows(ctx)))
		}
	}
	if err == nil && id == 0 {
		id, err = s.claimLedger(ctx, name, shards)
	}
	if err == nil {
		err = s.copyLedger(ctx, id, name, shards)
	}
	if err != nil {
		return 0, wrap(err)
	}
	return id, nil
}

// findLedger asks every server; 0 when none knows the ledger.
func (s *Sink) findLedger(ctx context.Context, name string, shards int) (uint16, error) {
	var id uint16
	for _, n := range s.nodes {
		found, err := n.findLedger(ctx, name, shards)
		switch {
		case err != nil:
			return 0, n.says(err)
		case found != 0 && id != 0 && found != id:
			return 0, n.says(fmt.Errorf("it is ledger %d here and %d on another server: put the rows of the table ledgers right", found, id))
		case found != 0:
			id = found
		}
	}
	return id, nil
}

// claimLedger claims the next id that no server has given away.
func (s *Sink) claimLedger(ctx context.Context, name string, shards int) (uint16, error) {
	const tries = 64 // Each lost claim means that another ledger got one.
	for range tries {
		last := 0
		for _, n := range s.nodes {
			there, err := n.lastLedger(ctx)
			if err != nil {
				return 0, n.says(classifyRead(err))
			}
			last = max(last, there)
		}
		if last >= pipeline.MaxLedger {
			return 0, fmt.Errorf("all %d ledger ids are taken: use another database", pipeline.MaxLedger)
		}
		if err := s.nodes[0].writeLedger(ctx, last+1, name, shards); err != nil {
			return 0, s.nodes[0].says(classifyRead(err))
		}
		if id, err := s.nodes[0].findLedger(ctx, name, shards); err != nil || id != 0 {
			return id, s.nodes[0].says(err)
		}
	}
	return 0, fmt.Errorf("%w: lost %d claims to others", pipeline.ErrTransient, tries)
}

// copyLedger writes the id to the servers that lack it. Written twice, it says the
// same.
func (s *Sink) copyLedger(ctx context.Context, id uint16, name string, shards int) error {
	for _, n := range s.nodes {
		there, err := n.findLedger(ctx, name, shards)
		if err == nil && there == 0 {
			if err = classifyRead(n.writeLedger(ctx, int(id), name, shards)); err == nil {
				there, err = n.findLedger(ctx, name, shards)
			}
		}
		if err == nil && there != id {
			err = fmt.Errorf("id %d belongs to another ledger here: a server of another cluster? take it out of clickhouse.servers, or use another database", id)
		}
		if err != nil {
			return n.says(err)
		}
	}
	return nil
}

// findLedger gives the lowest id whose first claim is the name's; 0 when none is.
// The block number is the order of commits; the table keeps it through merges.
func (s *node) findLedger(ctx context.Context, name string, shards int) (uint16, error) {
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

func (s *node) refuseForeignRows(ctx context.Context) error {
	if _, ours := s.tables[schemas.Flows.Name]; !ours {
		return nil
	}
	text, err := s.exec(ctx, "", "SELECT count() FROM "+s.name(schemas.Flows.Name)+" FORMAT TabSeparated")
	if err != nil {
		return classifyRead(err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return fmt.Errorf("count flows: unexpected answer %q", shorten(text))
	}
	if n > 0 {
		return fmt.Errorf("%w (%d rows in database %q): point to the ledger that wrote them, or use another database",
			ErrForeignRows, n, s.config.Database)
	}
	return nil
}

// lastLedger gives the highest id that the server knows; 0 when none.
func (s *node) lastLedger(ctx context.Context) (int, error) {
	text, err := s.exec(ctx, "", "SELECT ifNull(max(ledger), 0) FROM "+s.name(schemas.Ledgers.Name)+" FORMAT TabSeparated")
	if err != nil {
		return 0, err
	}
	last, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		return 0, fmt.Errorf("read the last id: unexpected answer %q", shorten(text))
	}
	return last, nil
}

func (s *node) writeLedger(ctx context.Context, id int, name string, shards int) error {
	_, err := s.exec(ctx, "", fmt.Sprintf("INSERT INTO %s (ledger, name, shards, created) SELECT %d, %s, %d, now64(3)",
		s.name(schemas.Ledgers.Name), id, schemas.QuoteString(name), shards), plainSettings...)
	return err
}
