package faults

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/cmd/internal/jobtest"
	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/ledger/ledgertest"
)

var corruptAll = flag.Bool("corrupt", false, "TestCorrupt: every length and 1,000 flips of each file, every file with the program")

// corruptFigures is what damage comes to.
type corruptFigures struct {
	Files       int `json:"files"`
	Truncations int `json:"truncations"`
	Flips       int `json:"flips"`
	Refused     int `json:"refused"` // the start says what to do
	Around      int `json:"around"`  // it goes back to an older state, and says so
	Harmless    int `json:"harmless"`
	Silent      int `json:"silent"` // a wrong start
	Starts      int `json:"starts"` // of the program, on damaged files
	balance
	Unstartable int     `json:"unstartable"` // doing what it said did not help
	Seconds     float64 `json:"seconds"`
	Seed        uint64  `json:"seed"`
}

// Each file of a ledger is cut to every length and gets random bits flipped. A start
// notices: it steps around the damage with a warning, or refuses and says what to do,
// or it never needed the file. The program itself is started on some of them, does
// what it said has to be done, and the tables are exact.
func TestCorrupt(t *testing.T) {
	began := time.Now()
	s, tuples, whole := ledgerOfAll(t)
	f := &corruptFigures{Files: len(whole), Seed: uint64(began.UnixNano())}
	random := rand.New(rand.NewPCG(f.Seed, 0))
	judge := newJudge(t, whole)
	step, flips := 13, 100
	if *corruptAll {
		step, flips = 1, 1000
	}
	for _, name := range slices.Sorted(maps.Keys(whole)) {
		data := whole[name]
		for n := 0; n < len(data); n += step {
			f.Truncations++
			f.count(t, fmt.Sprintf("%s cut to %d bytes", name, n), judge.verdict(name, data[:n]))
		}
		for range flips {
			f.Flips++
			bit := random.IntN(8 * len(data))
			flipped := slices.Clone(data)
			flipped[bit/8] ^= 1 << (bit % 8)
			f.count(t, fmt.Sprintf("%s with bit %d flipped", name, bit), judge.verdict(name, flipped))
		}
	}
	f.startAll(t, s, tuples, whole)
	f.Seconds = time.Since(began).Round(time.Second / 10).Seconds()
	if f.Silent+f.Unstartable != 0 || f.Lost+f.Dup != 0 {
		t.Error("want no silent wrong start, nothing lost, doubled or unstartable")
	}
	jobtest.Figures(t, f)
}

// ledgerOfAll gives a job whose third commit was cut short, and the files of its
// ledger, every kind of them.
func ledgerOfAll(t *testing.T) (small, uint64, map[string][]byte) {
	t.Helper()
	requireTracer(t)
	s, tuples := template(t, true)
	t.Run("cut short", func(t *testing.T) {
		_, p, _ := s.pipelineWith(t, point{"renameat", "state/000/base/@-3.tmp", 1}, "signal=SIGKILL")
		if code := p.Cmd.ProcessState.ExitCode(); code != -1 {
			t.Fatalf("the pipeline was not killed before its base, but ended with exit code %d: %s", code, p.Said())
		}
	})
	d, err := ledger.OpenDirectory(s.state())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	l, err := ledger.View(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	// A head stands there when no manifest is near, a claim after a backfill.
	if err := l.WriteHead(t.Context(), 0, 1); err != nil {
		t.Fatal(err)
	}
	if err := ledger.Claim(t.Context(), d, l.Info().Start, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	whole := map[string][]byte{}
	for _, folder := range []string{"", "000/", "000/m/", "000/base/", "transforms/", "data/"} {
		names, err := d.List(t.Context(), folder)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if whole[name], err = d.Get(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, empty := range []string{"lock", "claim.lock"} {
		delete(whole, empty)
	}
	for _, want := range []string{"info", "name", "epoch", "claim", "000/head", "000/m/", "000/base/", "transforms/", "data/"} {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(whole)), func(name string) bool { return strings.HasPrefix(name, want) }) {
			t.Fatalf("the ledger has no %s: %v", want, slices.Sorted(maps.Keys(whole)))
		}
	}
	return s, tuples, whole
}

// verdict is what a start made of damage.
type verdict int

const (
	refused verdict = iota
	around
	harmless
	silent
)

func (f *corruptFigures) count(t *testing.T, what string, v verdict) {
	t.Helper()
	switch v {
	case refused:
		f.Refused++
	case around:
		f.Around++
	case harmless:
		f.Harmless++
	case silent:
		f.Silent++
		t.Errorf("%s: a start goes wrong and does not say so", what)
	}
}

// judge knows what a start finds in the whole ledger.
type judge struct {
	t         *testing.T
	whole     ledgertest.Memory
	id        uint16
	info      ledger.Info
	epoch     uint64
	state     ledger.State
	bases     map[uint64]ledger.Base
	manifests map[uint64]pipeline.Manifest
}

func newJudge(t *testing.T, whole ledgertest.Memory) *judge {
	t.Helper()
	view, err := ledger.View(t.Context(), whole)
	if err != nil {
		t.Fatal(err)
	}
	j := &judge{t: t, whole: whole, id: view.Info().ID, bases: map[uint64]ledger.Base{}, manifests: map[uint64]pipeline.Manifest{}}
	l, state, err := j.start(maps.Clone(whole))
	if err != nil {
		t.Fatal(err)
	}
	j.info, j.epoch, j.state = l.Info(), l.Epoch(), state
	// Without the newest base a start finds the one before it.
	older := maps.Clone(whole)
	delete(older, fmt.Sprintf("000/base/%011d", state.Base.Seq))
	_, before, err := j.start(older)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []ledger.State{state, before} {
		j.bases[s.Base.Seq] = s.Base
		for _, m := range s.Manifests {
			j.manifests[m.Seq] = m
		}
	}
	if len(j.bases) != 2 || len(state.Manifests) == 0 {
		t.Fatalf("want two bases and a manifest behind them, found bases %v", slices.Sorted(maps.Keys(j.bases)))
	}
	return j
}

// start does what a start of the pipeline does with a ledger.
func (j *judge) start(store ledgertest.Memory) (*ledger.Ledger, ledger.State, error) {
	l, err := ledger.Open(j.t.Context(), store, ledger.Info{Shards: 1}, ledger.OneLedger(j.id))
	if err != nil {
		return nil, ledger.State{}, err
	}
	s, err := l.Recover(j.t.Context(), 0)
	for _, m := range s.Manifests {
		for _, used := range m.Transforms {
			err = errors.Join(err, readTransform(j.t.Context(), l, used.Version))
		}
	}
	return l, s, err
}

// readTransform reads a version and all that it names.
func readTransform(ctx context.Context, l *ledger.Ledger, hash string) error {
	recipe, data, err := l.Transform(ctx, hash)
	if err != nil {
		return err
	}
	for _, part := range strings.FieldsFunc(string(recipe), func(r rune) bool { return !strings.ContainsRune("0123456789abcdef", r) }) {
		if len(part) == len(pipeline.Hash(nil)) {
			if _, err := data(part); err != nil {
				return err
			}
		}
	}
	return nil
}

// verdict starts on a ledger with one damaged file.
func (j *judge) verdict(name string, damaged []byte) verdict {
	store := maps.Clone(j.whole)
	store[name] = damaged
	l, s, err := j.start(store)
	if err != nil {
		if text := err.Error(); strings.Contains(text, name) && strings.Contains(text, "millrace ledger rebuild") {
			return refused
		}
		j.t.Errorf("%s: the error does not say what is damaged and what to do: %v", name, err)
		return silent
	}
	if l.Info() != j.info || l.Epoch() != j.epoch || s.NextSeq() != j.state.NextSeq() || s.DoneSeq > j.state.DoneSeq {
		return silent
	}
	if !cmp.Equal(s.Base, j.bases[s.Base.Seq]) {
		return silent
	}
	for _, m := range s.Manifests {
		if !cmp.Equal(m, j.manifests[m.Seq]) {
			return silent
		}
	}
	same := s.Base.Seq == j.state.Base.Seq && s.DoneSeq == j.state.DoneSeq
	switch {
	case len(s.Warnings) > 0:
		return around
	case same:
		return harmless
	}
	return silent
}

// startAll starts the program on damaged files and does what it says.
func (f *corruptFigures) startAll(t *testing.T, s small, tuples uint64, whole map[string][]byte) {
	t.Helper()
	type damage struct {
		name, how string
		data      []byte
	}
	var all []damage
	for _, name := range slices.Sorted(maps.Keys(whole)) {
		data := whole[name]
		all = append(all, damage{name, "empty", nil}, damage{name, "half", data[:len(data)/2]})
		for _, at := range []int{strings.Index(string(data), " ") + 1, len(data) - 2} {
			flipped := slices.Clone(data)
			flipped[at] ^= 2
			all = append(all, damage{name, fmt.Sprintf("byte %d flipped", at), flipped})
		}
	}
	if !*corruptAll {
		all = []damage{all[6], all[17]} // the newest base, the last manifest
	}
	for _, d := range all {
		t.Run(strings.ReplaceAll(d.name, "/", "_")+" "+d.how, func(t *testing.T) {
			job := s.copyTo(t, filepath.Join(t.TempDir(), "job"))
			if err := os.WriteFile(filepath.Join(job.state(), d.name), d.data, 0o600); err != nil {
				t.Fatal(err)
			}
			f.Starts++
			b, ok := job.startDamaged(t, d.name, tuples)
			f.add(b)
			if !ok {
				f.Unstartable++
			}
		})
	}
}

// startDamaged starts the program, and rebuilds the ledger if it says so.
func (s small) startDamaged(t *testing.T, name string, tuples uint64) (balance, bool) {
	t.Helper()
	ch := s.start(t, clickhouseProgram(t), 0)
	w := s.world(t, ch.HTTPURL)
	p := w.Launch()
	if !ended(p) {
		t.Errorf("it does not end: %s", p.Said())
		return balance{}, false
	}
	if code := p.Cmd.ProcessState.ExitCode(); code != 0 {
		if code != 1 || !strings.Contains(p.Said(), name) || !strings.Contains(p.Said(), "millrace ledger rebuild") {
			t.Errorf("exit code %d without saying what to do: %s", code, p.Said())
		}
		if err := os.Rename(s.state(), s.state()+"-damaged"); err != nil {
			t.Fatal(err)
		}
		if out, code := w.Command("ledger", "rebuild", "--yes"); code != 0 {
			t.Errorf("rebuild: %s", out)
			return balance{}, false
		}
		if err := w.finish(t); err != nil {
			t.Error(err)
			return balance{}, false
		}
	}
	return w.reconcile(t, tuples), true
}
