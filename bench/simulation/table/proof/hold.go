package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/bench/simulation/table"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/clickhouse"
)

// manner is what happens to an INSERT that is held up.
type manner int

const (
	// fenced: it runs, and has read the fence, when a later owner raises it. The
	// owner waits for it; then it lands.
	fenced manner = iota
	// late: it arrives after a later owner has raised the fence.
	late
	// cut: its connection breaks in the middle.
	cut
	// mute: it lands, and the answer is lost.
	mute
	// died: the server is killed while it runs.
	died
)

func (m manner) String() string {
	return [...]string{"fenced while it runs", "late", "cut", "answer lost", "server killed while it runs"}[m]
}

// holding is a landing that is held up on its way.
type holding struct {
	landing
	manner manner
	epoch  uint64 // of the later owner
}

func (a holding) String() string { return a.landing.String() + ", " + a.manner.String() }

// The server lists an INSERT over HTTP after its first 256 KiB, and reads a body chunk
// by chunk, whole ones only; a long column is one chunk. So the filling of three heavy
// rows has to pass, and their tail not.
const (
	heavyPad    = 100 << 10
	listedAfter = 340 << 10
)

func (g *generator) held() action {
	l := g.landing()
	m := manner(g.random.IntN(int(died)))
	if m == fenced || m == cut {
		l = g.heavy(l)
	}
	shard := l.batch.Shard()
	l.epoch = max(g.epochs[shard], 1)
	a := holding{landing: l, manner: m, epoch: l.epoch + 1}
	if m == fenced || m == late {
		g.epochs[shard] = a.epoch
	}
	return a
}

// dying is held with the server's death before it.
func (g *generator) dying() holding {
	a := g.heavy(g.landing())
	a.epoch = max(g.epochs[a.batch.Shard()], 1)
	return holding{landing: a, manner: died}
}

// heavy makes it so long that the server lists it before it has all of it.
func (g *generator) heavy(l landing) landing {
	day := l.rows[0].day
	l.rows = nil
	for range 3 {
		g.v++
		l.rows = append(l.rows, row{day, g.v, heavyPad})
	}
	return l
}

func (a holding) model(m *table.Server) error {
	in := a.insert()
	raise := func() error { return m.Fence(in.Ledger, in.Shard, a.epoch) }
	switch a.manner {
	case late:
		if err := raise(); err != nil {
			return err
		}
		return m.Insert(in)
	case mute:
		_ = m.Insert(in) // Nobody hears what came of it.
		return table.ErrLost
	case fenced, cut, died:
	}
	if err := m.Begin(in); err != nil {
		return err
	}
	switch a.manner {
	case cut:
		m.Cancel(in.Query)
		return table.ErrLost
	case died:
		m.Kill()
		return table.ErrLost
	default:
		if err := raise(); err != nil || len(m.Running(in.Ledger, in.Shard, a.epoch)) != 1 {
			return fmt.Errorf("BUG: the model does not show the INSERT that runs: %w", err)
		}
		return m.End(in.Query)
	}
}

func (a holding) run(ctx context.Context, d *database) error {
	pass := listedAfter
	if a.manner == late {
		pass = 0
	}
	h, err := a.begin(ctx, d, pass)
	if err != nil {
		return err
	}
	defer h.end()
	switch a.manner {
	case late:
		if err := d.sink.Fence(ctx, ledger, a.batch.Shard(), a.epoch); err != nil {
			return err
		}
		h.gate.release()
	case cut:
		if err := h.listed(ctx, d); err != nil {
			return err
		}
		h.gate.cut()
	case mute:
		h.gate.cut()
	case fenced:
		return a.raise(ctx, d, h)
	case died: // The kill is the group's.
	}
	landed := <-h.landed
	if a.manner == cut { // What it writes would come before it is over.
		if err := h.gone(ctx, d); err != nil {
			return err
		}
	}
	return landed
}

// held is a landing on its way.
type held struct {
	action holding
	gate   *gate
	sink   *clickhouse.Sink
	landed chan error
}

// begin sends the piece through a gate and returns when it is held there, or came
// through without.
func (a holding) begin(ctx context.Context, d *database, pass int) (*held, error) {
	g, err := newGate(d.engine.ch.HTTPURL, pass, a.manner == mute)
	if err != nil {
		return nil, err
	}
	h := &held{action: a, gate: g, landed: make(chan error, 1)}
	if h.sink, err = d.open(g.url); err != nil {
		g.close()
		return nil, err
	}
	through := *d
	through.sink = h.sink
	go func() { h.landed <- a.landing.run(ctx, &through) }()
	select {
	case <-g.held:
		return h, nil
	case err := <-h.landed: // Refused before it was held.
		h.landed <- err
		return h, nil
	}
}

// end takes gate and sink away. The landing is over by then: nothing holds it.
func (h *held) end() {
	h.gate.close()
	_ = h.sink.Close()
}

// raise lets a later owner fence while the INSERT runs.
func (a holding) raise(ctx context.Context, d *database, h *held) error {
	if err := h.listed(ctx, d); err != nil {
		return err
	}
	raised := make(chan error, 1)
	go func() { raised <- d.sink.Fence(ctx, ledger, a.batch.Shard(), a.epoch) }()
	err := until(ctx, func() (bool, error) {
		n, err := d.number(ctx, fmt.Sprintf("SELECT max(epoch) FROM fence WHERE ledger = %d AND shard = %d", ledger, a.batch.Shard()))
		return n >= int(a.epoch), err
	})
	early := len(raised) > 0
	h.gate.release()
	landed := <-h.landed
	if err == nil {
		err = <-raised
	}
	switch {
	case err != nil:
		return err
	case early:
		return contradiction(fmt.Sprintf("the fence did not wait for the INSERT that runs, which ended with %v", landed))
	}
	return landed
}

// listed returns when the server lists the INSERT.
func (h *held) listed(ctx context.Context, d *database) error {
	return until(ctx, func() (bool, error) {
		n, err := h.running(ctx, d)
		return n > 0 || len(h.landed) > 0, err
	})
}

// gone returns when it does not any more.
func (h *held) gone(ctx context.Context, d *database) error {
	return until(ctx, func() (bool, error) {
		n, err := h.running(ctx, d)
		return n == 0, err
	})
}

func (h *held) running(ctx context.Context, d *database) (int, error) {
	return d.number(ctx, fmt.Sprintf("SELECT count() FROM system.processes WHERE current_database = %s AND startsWith(query_id, 'millrace-%d-%d-%d-')",
		schemas.QuoteString(d.name), ledger, h.action.batch.Shard(), h.action.batch.Seq()))
}

func (d *database) number(ctx context.Context, sql string) (int, error) {
	text, err := d.http.Exec(ctx, sql)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(text))
}

// until asks again until the answer is yes.
func until(ctx context.Context, ask func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		yes, err := ask()
		if yes || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(2 * time.Millisecond):
		}
	}
}
