package main

import (
	"fmt"
	"math/rand/v2"

	"github.com/millrace/millrace/pipeline"
)

// generator makes the actions of one script out of its seed. It never asks how they
// went.
type generator struct {
	random *rand.Rand
	window int
	epochs [2]uint64 // by shard, as the script raised them
	seq    uint64
	v      uint64
	made   []insertion // for retries
}

func newGenerator(seed uint64) *generator {
	random := rand.New(rand.NewPCG(seed, 5))
	return &generator{random: random, window: []int{0, 1, 2, 3, 5, 8, 100}[random.IntN(7)]}
}

// choice is a kind of action and how often it comes.
type choice struct {
	weight int
	make   func(g *generator) []action
}

var choices = []choice{
	{22, func(g *generator) []action { return []action{g.landing()} }},
	{10, func(g *generator) []action { return []action{g.raising()} }},
	{40, func(g *generator) []action { return []action{g.insertion()} }},
	{6, func(g *generator) []action { return []action{dropPartition(g.table(), g.random.IntN(days))} }},
	{5, func(g *generator) []action { return []action{g.deletion()} }},
	{2, func(g *generator) []action { return []action{truncate(g.table())} }},
	{5, func(g *generator) []action { return []action{merge(g.table(), g.random.IntN(days))} }},
	{3, func(g *generator) []action { return []action{setWindow(windowed, g.random.IntN(5))} }},
	{2, func(g *generator) []action { return g.limited() }},
	{3, func(g *generator) []action { return []action{reattach{g.table()}} }},
	{1, func(g *generator) []action { return g.lost() }},
	{3, func(g *generator) []action { return []action{g.held()} }},
}

// next gives one action, or a few that belong together.
func (g *generator) next() []action {
	total := 0
	for _, c := range choices {
		total += c.weight
	}
	n := g.random.IntN(total)
	for _, c := range choices {
		if n -= c.weight; n < 0 {
			return c.make(g)
		}
	}
	panic("BUG: weights do not add up")
}

func (g *generator) chance(percent int) bool { return g.random.IntN(100) < percent }

func (g *generator) table() string {
	if g.chance(70) {
		return windowed
	}
	return plain
}

func (g *generator) batch(shard int) pipeline.BatchID {
	g.seq++
	return newBatch(shard, g.seq)
}

func newBatch(shard int, seq uint64) pipeline.BatchID { return pipeline.NewBatchID(ledger, shard, seq) }

// rows makes n new rows over so many days.
func (g *generator) rows(n, over int) []row {
	first := g.random.IntN(days)
	rows := make([]row, n)
	for i := range rows {
		g.v++
		rows[i] = row{day: (first + g.random.IntN(over)) % days, v: g.v}
	}
	return rows
}

// landing is mostly of the owner's epoch, sometimes of an old one.
func (g *generator) landing() landing {
	shard := g.random.IntN(len(g.epochs))
	a := landing{table: g.table(), batch: g.batch(shard), epoch: max(g.epochs[shard], 1), rows: g.rows(1+g.random.IntN(4), 1)}
	if g.chance(25) {
		a.epoch = max(a.epoch, 2) - 1
	}
	return a
}

func (g *generator) raising() raising {
	shard := g.random.IntN(len(g.epochs))
	a := raising{shard, g.epochs[shard] + 1 + g.random.Uint64N(2)}
	if g.chance(25) {
		a.epoch = max(1, g.epochs[shard]) - g.random.Uint64N(2)
	}
	g.epochs[shard] = max(g.epochs[shard], a.epoch)
	return a
}

// insertion is new, or goes back to an old one: the same again, with other content,
// or cut in other blocks.
func (g *generator) insertion() insertion {
	if len(g.made) > 0 && g.chance(50) {
		a := g.made[max(0, len(g.made)-1-g.random.IntN(8))]
		switch g.random.IntN(5) {
		case 0:
			a.rows = g.rows(len(a.rows), 2)
		case 1:
			a.block = 1 + g.random.IntN(len(a.rows)+1)
		case 2:
			a.table = g.table()
		}
		g.made = append(g.made, a)
		return a
	}
	n := 1 + g.random.IntN(5)
	a := insertion{table: g.table(), batch: g.batch(g.random.IntN(len(g.epochs))), rows: g.rows(n, 1+g.random.IntN(3)), block: n}
	a.how = []tokens{byToken, byToken, byToken, byContent, off}[g.random.IntN(5)]
	a.token = fmt.Sprintf("t%d", a.batch)
	if g.chance(30) {
		a.block = 1 + g.random.IntN(n)
	}
	a.single = g.chance(10)
	g.made = append(g.made, a)
	return a
}

// deletion takes rows here and there, or all of them: a part without rows is a case
// of its own.
func (g *generator) deletion() action {
	by := 1 + g.random.Uint64N(3)
	return deleteRest(g.table(), by, g.random.Uint64N(by))
}

// limited refuses INSERTs for a while.
func (g *generator) limited() []action {
	t := g.table()
	all := []action{setLimit(t, 1+g.random.IntN(4))}
	for range 3 {
		if a := g.insertion(); g.chance(50) {
			a.table = t
			all = append(all, a)
		} else {
			l := g.landing()
			l.table = t
			all = append(all, l)
		}
	}
	return append(all, setLimit(t, unlimited))
}

// lost drops a table, finds it missing, and makes it anew.
func (g *generator) lost() []action {
	t := g.table()
	l, a := g.landing(), g.insertion()
	l.table, a.table = t, t
	return []action{dropTable{t}, l, a, createTable{t, g.window}}
}

// inserting gives an INSERT for a kill to meet.
func (g *generator) inserting() inserting {
	if g.chance(30) {
		return g.landing()
	}
	return g.insertion()
}

// mortal gives what a kill at a random moment meets.
func (g *generator) mortal() action {
	if g.chance(10) {
		return g.raising()
	}
	return g.inserting()
}
