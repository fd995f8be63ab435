package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// Which server a batch goes to: that of its shard, shard number modulo servers in
// the order of their names. So one network interface stays on one server, and a
// server that is down stops the shards that it serves and no others. By the batch
// instead, load would be spread evenly whatever the number of shards, but the
// commits of a shard are done in order: each shard would soon wait for the server
// that is down, and with it the whole pipeline. The price is that shards have to be
// at least as many as servers, and better several times as many.
//
// A batch that was planned for a server waits for it: its INSERT may have landed
// there, and only that server knows. New batches of the shard do not go elsewhere
// meanwhile: all but a few (max_in_flight) would wait behind it anyway.
//
// The server is recorded in the manifest, so that recovery asks and lands there,
// whatever the list has become. A list that changes moves shards, and that is all:
// rows stay where they are, and the Distributed tables show them.

// home gives the server of a shard.
func (s *Sink) home(shard int) *node { return s.nodes[shard%len(s.nodes)] }

// Plan gives each piece its server; see pipeline.Planner.
func (s *Sink) Plan(batch pipeline.BatchID, pieces []pipeline.Piece, recorded []pipeline.PieceRef) ([]pipeline.Piece, error) {
	planned := slices.Clone(pieces)
	for i := range planned {
		planned[i].Retain()
		planned[i].Server = s.home(batch.Shard()).server
		if i < len(recorded) {
			planned[i].Server = recorded[i].Server
		}
	}
	return planned, nil
}

// at finds the server that a piece was planned for.
func (s *Sink) at(server string) (*node, error) {
	i := slices.IndexFunc(s.nodes, func(n *node) bool { return n.server == server })
	switch {
	case i >= 0:
		return s.nodes[i], nil
	case server == "":
		return nil, errors.New("the batch was planned for the one server of clickhouse.url, and clickhouse.servers is set now: start with the old configuration, stop it softly, then change it")
	}
	return nil, fmt.Errorf("the batch was planned for ClickHouse server %q, which clickhouse.servers does not list: put it back, start, stop softly, then take it out; if the server is lost for good, start an empty one at that address: what was not committed lands there", server)
}

// each does it on every server at once, and gives all faults: the transient ones
// only when there are no others, as those are worth another try.
func (s *Sink) each(do func(i int, n *node) error) error {
	faults := make([]error, len(s.nodes))
	var wg sync.WaitGroup
	for i, n := range s.nodes {
		wg.Go(func() { faults[i] = n.says(do(i, n)) })
	}
	wg.Wait()
	lasting := slices.DeleteFunc(slices.Clone(faults), func(err error) bool { return errors.Is(err, pipeline.ErrTransient) })
	if err := errors.Join(lasting...); err != nil {
		return err
	}
	return errors.Join(faults...)
}

// Land makes one INSERT of the piece; see pipeline.Sink.
//
// Errors: ErrFenced, ErrTransient (also when the login is refused: see Renew),
// ErrInDoubt; anything else is fatal and says what to do. A piece without rows is landed by doing nothing.
func (s *Sink) Land(ctx context.Context, batch pipeline.BatchID, epoch uint64, piece pipeline.Piece) error {
	n, err := s.at(piece.Server)
	if err != nil {
		return fmt.Errorf("land batch %v in table %q: %w", batch, piece.Table, err)
	}
	return n.says(waiting(n.land(ctx, batch, epoch, piece)))
}

// Probe counts the rows of the batch that are there, for each piece, in order, on
// the server that the piece was planned for; see pipeline.Sink. A count of 0 means
// that the piece is not there; that it will not come any more is for Fence to say.
// After ErrInDoubt the order is therefore Fence with a higher epoch, Probe, Land. A
// piece that is not there counts as landed when its rows were deleted on purpose: see
// Forget.
//
// Errors: ErrTransient. Pieces of one table whose rows could not be told apart
// (times overlap and MACs too) are a broken invariant and refused.
func (s *Sink) Probe(ctx context.Context, batch pipeline.BatchID, pieces []pipeline.PieceRef) ([]int64, error) {
	places := map[*node][]int{}
	for i, p := range pieces {
		n, err := s.at(p.Server)
		if err != nil {
			return nil, fmt.Errorf("probe batch %v: %w", batch, err)
		}
		places[n] = append(places[n], i)
	}
	counts := make([]int64, len(pieces))
	group, ctx := errgroup.WithContext(ctx)
	for n, at := range places {
		group.Go(func() error {
			found, err := n.probe(ctx, batch, pick(pieces, at))
			if err != nil {
				return n.says(waiting(err))
			}
			for i, place := range at {
				counts[place] = found[i]
			}
			return nil
		})
	}
	return counts, group.Wait()
}

// Fence makes every INSERT of an older epoch impossible, on every server; see
// pipeline.Sink. An owner calls it when it takes over, and again with a higher epoch
// when an INSERT of its own is in doubt.
//
// It blocks while an older INSERT runs on a server, and kills none: a killed one
// may have landed. ctx ends the wait.
//
// Errors: ErrFenced when a later epoch is there already; ErrTransient, then the
// caller calls again.
func (s *Sink) Fence(ctx context.Context, ledger uint16, shard int, epoch uint64) error {
	return s.each(func(_ int, n *node) error { return waiting(n.fence(ctx, ledger, shard, epoch)) })
}

// LandBatches writes the byte ranges behind the batches into the table batches, in
// a cluster on the server that has their rows. The table replaces rows of the same
// address, so that writing them twice does no harm: after any error that is not
// fatal the caller writes them again.
//
// Errors: ErrTransient; others are fatal.
func (s *Sink) LandBatches(ctx context.Context, manifests []pipeline.Manifest) error {
	places := map[*node][]pipeline.Manifest{}
	for _, m := range manifests {
		n := s.home(m.Shard)
		for _, p := range m.Pieces {
			if recorded, err := s.at(p.Server); err == nil && p.Server != "" {
				n = recorded
			}
		}
		places[n] = append(places[n], m)
	}
	return s.each(func(_ int, n *node) error { return waiting(n.landBatches(ctx, places[n])) })
}

// distributedSQL shows the rows of all servers under the name that people know.
func (s *node) distributedSQL(create, table, cluster string) string {
	return fmt.Sprintf("%s %s AS %s ENGINE = Distributed(%s, %s, %s) COMMENT %s", create, s.quoted(table), s.name(table),
		schemas.QuoteString(cluster), schemas.QuoteString(s.config.Database), schemas.QuoteString(table+localSuffix),
		schemas.QuoteString(s.tables[table].Comment))
}

// planDistributed gives the statements that make the Distributed tables, or make
// them again with the columns that their local tables have now.
func (s *node) planDistributed(have map[string]schemas.Existing) ([]string, error) {
	var statements []string
	var faults []error
	for _, name := range s.order {
		if !s.spread(name) {
			continue
		}
		old, there := have[name]
		switch {
		case there && old.Engine != "Distributed":
			faults = append(faults, fmt.Errorf("table %q is a %s of a single server, want a Distributed table: RENAME TABLE %s TO %s, then start again",
				name, old.Engine, s.quoted(name), s.name(name)))
		case s.config.Cluster == "":
			// Its owner's business: see lacksDistributed.
		case !there:
			statements = append(statements, s.distributedSQL("CREATE TABLE IF NOT EXISTS", name, s.config.Cluster))
		case s.stale(name, have):
			statements = append(statements, s.distributedSQL("CREATE OR REPLACE TABLE", name, s.config.Cluster))
		}
	}
	return statements, errors.Join(faults...)
}

// lacksDistributed names the Distributed tables that somebody else has to make, now
// that their local tables are there.
func (s *node) lacksDistributed(have map[string]schemas.Existing) error {
	var faults []error
	for _, name := range s.order {
		if _, there := have[name]; s.spread(name) && s.config.Cluster == "" && !there {
			faults = append(faults, fmt.Errorf("table %q is not there: name the servers' cluster in clickhouse.cluster, or create it: %s",
				name, s.distributedSQL("CREATE TABLE", name, "CLUSTER")))
		}
	}
	return errors.Join(faults...)
}

// stale says that a Distributed table lacks a column that its local table has or
// gets, or shows something else.
func (s *node) stale(name string, have map[string]schemas.Existing) bool {
	shown := map[string]string{} // the comment of each column
	for _, c := range have[name].Columns {
		shown[c.Name] = c.Comment
	}
	for _, c := range s.tables[name].Made().Columns {
		if comment, there := shown[c.Name]; !there || comment != c.Comment() {
			return true
		}
	}
	for _, c := range have[name+localSuffix].Columns {
		if _, there := shown[c.Name]; !there {
			return true
		}
	}
	return !s.shows(name, have[name]) || s.config.Cluster != "" && !strings.HasPrefix(have[name].EngineFull, "Distributed("+schemas.QuoteString(s.config.Cluster)+",")
}

// shows says that a Distributed table stands over our local one.
func (s *node) shows(name string, old schemas.Existing) bool {
	return strings.Contains(old.EngineFull, fmt.Sprintf(", %s, %s", schemas.QuoteString(s.config.Database), schemas.QuoteString(name+localSuffix)))
}

// checkDistributed asserts that the Distributed tables show every server's rows
// once: each stands over its local table, and the cluster has as many shards as
// servers are listed, or more. Then it asks all of them something.
func (s *node) checkDistributed(ctx context.Context) ([]error, error) {
	if s.server == "" {
		return nil, nil
	}
	have, err := s.existing(ctx)
	if err != nil {
		return nil, err
	}
	var faults []error
	for _, name := range s.order {
		if !s.spread(name) {
			continue
		}
		old, there := have[name]
		switch {
		case !there:
			faults = append(faults, fmt.Errorf("table %q is not there: run Setup first", name))
		case old.Engine != "Distributed" || !s.shows(name, old):
			faults = append(faults, fmt.Errorf("table %q is %s, want a Distributed table over %s", name, old.EngineFull, s.name(name)))
		case s.stale(name, have):
			faults = append(faults, fmt.Errorf("table %q does not show every column of %s, or not of cluster %q: run Setup, or replace it: %s",
				name, s.name(name), s.config.Cluster, s.distributedSQL("CREATE OR REPLACE TABLE", name, "CLUSTER")))
		}
	}
	if len(faults) > 0 {
		return faults, nil
	}
	if faults, err = s.checkShards(ctx); err != nil || len(faults) > 0 {
		return faults, err
	}
	if _, err := s.exec(ctx, "", "SELECT count() FROM "+s.quoted(schemas.Batches.Name)+" WHERE batch_id = 0 FORMAT TabSeparated", "skip_unavailable_shards=0"); err != nil {
		faults = append(faults, fmt.Errorf("the servers cannot ask each other: check remote_servers and its user: %w", err))
	}
	return faults, nil
}

// checkShards compares the cluster with the list of servers.
func (s *node) checkShards(ctx context.Context) ([]error, error) {
	if s.config.Cluster == "" || strings.Contains(s.config.Cluster, "{") {
		return nil, nil // Of a macro only the server knows which cluster it means.
	}
	text, err := s.exec(ctx, "", "SELECT uniqExact(shard_num) FROM system.clusters WHERE cluster = "+schemas.QuoteString(s.config.Cluster)+" FORMAT TabSeparated")
	if err != nil {
		return nil, err
	}
	shards, err := strconv.Atoi(strings.TrimSpace(text))
	switch {
	case err != nil:
		return nil, fmt.Errorf("count shards: unexpected answer %q", shorten(text))
	case shards == 0:
		return []error{fmt.Errorf("cluster %q is unknown: see remote_servers in the server's configuration", s.config.Cluster)}, nil
	case shards < len(s.config.Servers):
		return []error{fmt.Errorf("cluster %q has %d shards, clickhouse.servers lists %d servers: list one server of each shard", s.config.Cluster, shards, len(s.config.Servers))}, nil
	}
	return nil, nil
}
