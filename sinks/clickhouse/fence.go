package clickhouse

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// plainSettings go with INSERTs of our own book-keeping.
var plainSettings = []string{"async_insert=0", "insert_deduplicate=0"}

// fence makes every INSERT of an older epoch impossible on the server; see
// Sink.Fence.
func (s *node) fence(ctx context.Context, ledger uint16, shard int, epoch uint64) error {
	wrap := func(err error) error {
		return fmt.Errorf("fence shard %d of ledger %d at epoch %d: %w", shard, ledger, epoch, err)
	}
	there, err := s.readFence(ctx, ledger, shard)
	if err == nil && there < epoch {
		// Written twice after a lost answer, the row says the same.
		_, err = s.exec(ctx, s.config.Database, fmt.Sprintf("INSERT INTO %s (ledger, shard, epoch, created) SELECT %d, %d, %d, now64(3)",
			s.name(schemas.Fence.Name), ledger, shard, epoch), plainSettings...)
		if err == nil {
			there, err = s.readFence(ctx, ledger, shard)
		}
	}
	if err != nil {
		return wrap(classifyRead(err))
	}
	if there > epoch {
		return wrap(fmt.Errorf("%w: epoch %d is there", pipeline.ErrFenced, there))
	}
	if err := s.waitOlder(ctx, ledger, shard, epoch); err != nil {
		return wrap(err)
	}
	return nil
}

// readFence gives the highest epoch that the server knows; 0 when none.
func (s *node) readFence(ctx context.Context, ledger uint16, shard int) (uint64, error) {
	text, err := s.exec(ctx, s.config.Database, fmt.Sprintf("SELECT ifNull(max(epoch), 0) FROM %s WHERE ledger = %d AND shard = %d FORMAT TabSeparated",
		s.name(schemas.Fence.Name), ledger, shard))
	if err != nil {
		return 0, err
	}
	epoch, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the fence: unexpected answer %q", shorten(text))
	}
	return epoch, nil
}

// waitOlder returns when no INSERT of the shard with a lower epoch runs. It asks
// by query id, where the epoch is written.
func (s *node) waitOlder(ctx context.Context, ledger uint16, shard int, epoch uint64) error {
	where := fmt.Sprintf("startsWith(query_id, %s) AND toUInt64OrZero(extract(query_id, '-e([0-9]+)-[0-9a-f]+$')) < %d",
		schemas.QuoteString(queryPrefix(ledger, shard)), epoch)
	pause := 5 * time.Millisecond
	for {
		n, err := s.running(ctx, where)
		if err != nil {
			return classifyRead(err)
		}
		if n == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %d older INSERTs still run: %w", pipeline.ErrTransient, n, context.Cause(ctx))
		case <-time.After(pause):
		}
		pause = min(2*pause, time.Second)
	}
}

// running counts the queries that the server runs in our database.
func (s *node) running(ctx context.Context, where string) (int, error) {
	sql := "SELECT count() FROM system.processes WHERE current_database = " +
		schemas.QuoteString(s.config.Database) + " AND " + where + " FORMAT TabSeparated"
	text, err := s.exec(ctx, s.config.Database, sql)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		return 0, fmt.Errorf("count running queries: unexpected answer %q", shorten(text))
	}
	return n, nil
}
