package blob_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/blob/blobtest"
	"github.com/millrace/millrace/pipeline/secret"
)

// A body cut at any byte is resumed where it broke off, on condition of the same
// version; nothing is fetched twice.
func TestBodyCutAtEveryByte(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 1))
	s := blobtest.Start(t)
	s.Append(id, record(r, 1, 300), record(r, 2, 200))
	data := s.Bytes(id)
	store := newStore(t, s)
	for cut := range int64(len(data)) {
		s.Forget()
		s.Faults("get", &blobtest.Fault{Cut: true, CutAfter: cut})
		f := &follower{t: t, reader: newReader(t, quick(), store), id: id}
		if out, err := f.read(-1); err != nil || out != blob.Read {
			t.Fatalf("cut at %d: %v, %v", cut, out, err)
		}
		f.want(data)
		stats, log := f.reader.Stats(), s.Requests()
		if stats.Bytes != int64(len(data)) || stats.Requests != 2 || stats.Retries != 1 {
			t.Errorf("cut at %d: %+v", cut, stats)
		}
		if log[1].IfMatch == "" {
			t.Errorf("cut at %d: resumed without If-Match", cut)
		}
	}
}

// The blob itself ends anywhere: only whole records count, the rest comes later.
func TestBlobCutAtEveryByte(t *testing.T) {
	r := rand.New(rand.NewPCG(22, 1))
	whole := blobtest.Header + record(r, 1, 250) + "," + record(r, 2, 200) + "," + record(r, 3, 200) + blobtest.Footer
	for size, step := range map[int64]int{64: 13, 300: 3, 8 << 20: 1} {
		s := blobtest.Start(t)
		store := newStore(t, s)
		cfg := quick()
		cfg.ChunkBytes = size
		reader := newReader(t, cfg, store)
		for cut := 0; cut < len(whole); cut += step {
			s.Put(id, []byte(whole[:cut]))
			f := &follower{t: t, reader: reader, id: id}
			if out, err := f.read(-1); err != nil || out != blob.Read && out != blob.NothingNew {
				t.Fatalf("cut at %d: %v, %v", cut, out, err)
			}
			s.Put(id, []byte(whole))
			if out, err := f.read(-1); err != nil || out == blob.Rewritten {
				t.Fatalf("cut at %d, then whole: %v, %v", cut, out, err)
			}
			f.want([]byte(whole))
		}
	}
}

// A minute's commit between a cut body and its second request: 412, and the read
// begins again behind what was emitted.
func TestBlobGrowsBetweenCutAndResume(t *testing.T) {
	for _, chunk := range []int64{600, 8 << 20} {
		t.Run(fmt.Sprint(chunk), func(t *testing.T) {
			r := rand.New(rand.NewPCG(23, 1))
			s := blobtest.Start(t)
			s.Append(id, record(r, 1, 500), record(r, 2, 500), record(r, 3, 500))
			cfg := quick()
			cfg.ChunkBytes = chunk
			f := &follower{t: t, reader: newReader(t, cfg, newStore(t, s)), id: id}
			grow := func() { s.Append(id, record(r, 9, 400)) }
			s.Faults("get",
				&blobtest.Fault{Cut: true, CutAfter: 900, During: grow}, nil,
				&blobtest.Fault{Cut: true, CutAfter: 700, During: grow}, &blobtest.Fault{Before: grow})
			if out, err := f.read(-1); err != nil || out != blob.Read {
				t.Fatalf("%v, %v", out, err)
			}
			f.want(s.Bytes(id))
			if n := f.reader.Stats().Restarts; n != 2 {
				t.Errorf("%d restarts, want 2", n)
			}
		})
	}
}

func TestBlobGrowsDuringTheRead(t *testing.T) {
	r := rand.New(rand.NewPCG(24, 1))
	s := blobtest.Start(t)
	s.Append(id, record(r, 1, 500))
	before := s.Bytes(id)
	f := &follower{t: t, reader: newReader(t, quick(), newStore(t, s)), id: id}
	s.Faults("get", &blobtest.Fault{During: func() { s.Append(id, record(r, 2, 500)) }})
	if out, err := f.read(-1); err != nil || out != blob.Read {
		t.Fatalf("%v, %v", out, err)
	}
	f.want(before)
	if out, err := f.read(-1); err != nil || out != blob.Read {
		t.Fatalf("%v, %v", out, err)
	}
	f.want(s.Bytes(id))
	if n := f.reader.Stats().Requests; n != 2 {
		t.Errorf("%d requests, want 2", n)
	}
}

// A blob deleted or written anew while a cut body waits for its second request.
func TestBlobVanishesOrChangesBetweenCutAndResume(t *testing.T) {
	for name, c := range map[string]struct {
		during func(s *blobtest.Server, other string)
		want   blob.Outcome
	}{
		"deleted":       {func(s *blobtest.Server, _ string) { s.Delete(id) }, blob.Gone},
		"written anew":  {func(s *blobtest.Server, other string) { s.Put(id, []byte(other)) }, blob.Rewritten},
		"made again":    {func(s *blobtest.Server, other string) { s.Delete(id); s.Put(id, []byte(other)) }, blob.Rewritten},
		"much shorter":  {func(s *blobtest.Server, _ string) { s.Put(id, []byte(`{"records":[]}`)) }, blob.Rewritten},
		"empty":         {func(s *blobtest.Server, _ string) { s.Put(id, nil) }, blob.Rewritten},
		"deleted twice": {func(s *blobtest.Server, _ string) { s.Delete(id); s.Delete(id) }, blob.Gone},
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(25, 1))
			s := blobtest.Start(t)
			s.Append(id, record(r, 1, 500))
			f := &follower{t: t, reader: newReader(t, quick(), newStore(t, s)), id: id}
			if out, err := f.read(-1); err != nil || out != blob.Read {
				t.Fatalf("%v, %v", out, err)
			}
			s.Append(id, record(r, 2, 500))
			other := blobtest.Header + record(r, 7, 3000) + blobtest.Footer
			s.Faults("get", &blobtest.Fault{Cut: true, CutAfter: 100, During: func() { c.during(s, other) }})
			if out, err := f.read(-1); err != nil || out != c.want {
				t.Fatalf("%v, %v, want %v", out, err, c.want)
			}
		})
	}
}

// Whatever the sequence of appends, announcements, cuts and faults, the chunks are
// the blob's records array, each byte once.
func TestAnySequenceGivesEachByteOnce(t *testing.T) {
	s := blobtest.Start(t)
	store := newStore(t, s)
	rounds := 40
	if testing.Short() {
		rounds = 15
	}
	for seed := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed, 77))
		cfg := quick()
		cfg.ChunkBytes = []int64{1, 40, 500, 2000, 8 << 20}[r.IntN(5)]
		blobID := id
		blobID.Path = fmt.Sprint(seed, "/", path)
		f := &follower{t: t, reader: newReader(t, cfg, store), id: blobID}
		randomLife(t, r, s, f)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func randomLife(t *testing.T, r *rand.Rand, s *blobtest.Server, f *follower) {
	var mu sync.Mutex // the server's goroutines and this one take turns at r
	locked := func(do func()) {
		mu.Lock()
		defer mu.Unlock()
		do()
	}
	appended := func() {
		if len(s.Bytes(f.id)) > 100_000 {
			return
		}
		for range 1 + r.IntN(3) {
			s.Append(f.id, record(r, r.IntN(100), r.IntN(1500)))
		}
	}
	grow := func() { locked(appended) }
	s.SetFault(func(blobtest.Request) (fault *blobtest.Fault) {
		locked(func() { fault = randomFault(r, grow) })
		return fault
	})
	for range 12 {
		said := int64(-1)
		locked(func() {
			if r.IntN(3) > 0 {
				appended()
			}
			if n := len(s.Bytes(f.id)); r.IntN(3) > 0 {
				said = max(0, int64(n-r.IntN(3)*r.IntN(n+1)))
			}
		})
		out, err := f.read(said)
		if err != nil && !errors.Is(err, pipeline.ErrTransient) || out == blob.Rewritten {
			t.Fatalf("%v, %v", out, err)
		}
	}
	s.SetFault(nil)
	if len(s.Bytes(f.id)) == 0 {
		return
	}
	if out, err := f.read(-1); err != nil || out == blob.Rewritten {
		t.Fatalf("at the end: %v, %v", out, err)
	}
	f.want(s.Bytes(f.id))
}

func randomFault(r *rand.Rand, grow func()) *blobtest.Fault {
	switch r.IntN(12) {
	case 0:
		return &blobtest.Fault{Status: 503, Code: "ServerBusy", Header: http.Header{"Retry-After": {"1"}}}
	case 1:
		return &blobtest.Fault{Status: 500, Code: "InternalError"}
	case 2, 3:
		return &blobtest.Fault{Cut: true, CutAfter: r.Int64N(3000)}
	case 4:
		return &blobtest.Fault{Cut: true, CutAfter: r.Int64N(3000), During: grow}
	case 5:
		return &blobtest.Fault{Before: grow}
	case 6:
		return &blobtest.Fault{During: grow}
	case 7:
		return &blobtest.Fault{NoETag: true, Cut: true, CutAfter: r.Int64N(2000)}
	case 8:
		return &blobtest.Fault{WholeBlob: true}
	}
	return nil
}

func TestAnswersAreClassified(t *testing.T) {
	for _, c := range []struct {
		status    int
		code      string
		kind      blob.Kind
		transient bool
		tries     int
		outcome   blob.Outcome
	}{
		{302, "", blob.KindOther, false, 1, blob.NothingNew},
		{307, "", blob.KindOther, false, 1, blob.NothingNew},
		{400, "InvalidHeaderValue", blob.KindOther, false, 1, blob.NothingNew},
		{401, "NoAuthenticationInformation", blob.KindRefused, false, 1, blob.NothingNew},
		{403, "AuthenticationFailed", blob.KindRefused, false, 1, blob.NothingNew},
		{403, "AuthorizationPermissionMismatch", blob.KindRefused, false, 1, blob.NothingNew},
		{403, "AuthorizationFailure", blob.KindRefused, false, 1, blob.NothingNew},
		{404, "BlobNotFound", blob.KindMissing, false, 1, blob.Gone},
		{404, "ContainerNotFound", blob.KindMissing, false, 1, blob.Gone},
		{409, "BlobArchived", blob.KindConflict, true, 6, blob.NothingNew},
		{408, "", blob.KindUnavailable, true, 6, blob.NothingNew},
		{429, "", blob.KindThrottled, true, 6, blob.NothingNew},
		{500, "InternalError", blob.KindUnavailable, true, 6, blob.NothingNew},
		{503, "ServerBusy", blob.KindThrottled, true, 6, blob.NothingNew},
		{504, "", blob.KindUnavailable, true, 6, blob.NothingNew},
	} {
		t.Run(fmt.Sprint(c.status, c.code), func(t *testing.T) {
			s := blobtest.Start(t)
			s.Append(id, `{"a":{}}`)
			s.SetFault(func(blobtest.Request) *blobtest.Fault {
				return &blobtest.Fault{Status: c.status, Code: c.code, Header: http.Header{"Location": {"http://169.254.169.254/latest"}}}
			})
			f := &follower{t: t, reader: newReader(t, quick(), newStore(t, s)), id: id}
			out, err := f.read(-1)
			if out != c.outcome || len(s.Requests()) != c.tries {
				t.Errorf("%v after %d requests, want %v after %d", out, len(s.Requests()), c.outcome, c.tries)
			}
			if c.outcome == blob.Gone {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var e *blob.Error
			if !errors.As(err, &e) || e.Kind != c.kind || e.Status != c.status || errors.Is(err, pipeline.ErrTransient) != c.transient {
				t.Errorf("%v (%+v)", err, e)
			}
			if !strings.Contains(err.Error(), id.String()) || !strings.Contains(err.Error(), fmt.Sprint(c.status)) {
				t.Errorf("the error does not name the blob and the status: %v", err)
			}
		})
	}
}

// Retry-After is waited for, within its bound; without it the wait doubles.
func TestWaits(t *testing.T) {
	for name, c := range map[string]struct {
		header      http.Header
		status      int
		least, most time.Duration
	}{
		"asked":          {http.Header{"Retry-After": {"7"}}, 503, 7 * time.Second, 7*time.Second + time.Millisecond},
		"asked in ms":    {http.Header{"X-Ms-Retry-After-Ms": {"2500"}}, 429, 2500 * time.Millisecond, 2501 * time.Millisecond},
		"asked too much": {http.Header{"Retry-After": {"86400"}}, 503, time.Minute, time.Minute + time.Millisecond},
		"not asked":      {nil, 500, 100 * time.Millisecond, 200 * time.Millisecond},
		"nonsense":       {http.Header{"Retry-After": {"soon"}}, 503, 100 * time.Millisecond, 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, reader := piped(t)
				s.Append(id, `{"a":{}}`)
				s.Faults("get", &blobtest.Fault{Status: c.status, Header: c.header})
				began := time.Now()
				f := &follower{t: t, reader: reader, id: id}
				if out, err := f.read(-1); err != nil || out != blob.Read {
					t.Errorf("%v, %v", out, err)
				}
				if took := time.Since(began); took < c.least || took > c.most {
					t.Errorf("waited %v, want %v to %v", took, c.least, c.most)
				}
			})
		})
	}
}

// piped gives a server and a reader with the default configuration that are
// connected without a network, so that a test can let the clock run.
func piped(t *testing.T) (*blobtest.Server, *blob.Reader) {
	s := blobtest.New()
	dial, stop := s.Pipe()
	store, err := blob.NewAzureStore([]blob.AccountConfig{{
		Name: account, Endpoint: s.Endpoint(account), SAS: secret.New(canarySAS), Dial: dial,
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		store.Close()
		stop()
	})
	return s, newReader(t, blob.DefaultConfig(split), store)
}

func TestBackoffIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, reader := piped(t)
		s.Append(id, `{"a":{}}`)
		s.SetFault(func(blobtest.Request) *blobtest.Fault { return &blobtest.Fault{Status: 500} })
		began := time.Now()
		f := &follower{t: t, reader: reader, id: id}
		_, err := f.read(-1)
		if !errors.Is(err, pipeline.ErrTransient) || len(s.Requests()) != 6 {
			t.Errorf("%v after %d requests", err, len(s.Requests()))
		}
		// 200 + 400 + 800 + 1600 + 3200 ms, each between a half and the whole
		if took := time.Since(began); took < 3100*time.Millisecond || took > 6200*time.Millisecond {
			t.Errorf("gave up after %v", took)
		}
	})
}

// A request that gives no byte for 30 s is begun anew; a slow one is not.
func TestIdleAndSlowBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, reader := piped(t)
		s.Append(id, `{"a":"`+strings.Repeat("x", 50)+`","b":{}}`)
		for name, c := range map[string]struct {
			fault       *blobtest.Fault
			least, most time.Duration
			retries     int64
		}{
			"no answer":  {&blobtest.Fault{Before: func() { time.Sleep(40 * time.Second) }}, 30 * time.Second, 31 * time.Second, 1},
			"body stops": {&blobtest.Fault{Stall: true, CutAfter: 20}, 30 * time.Second, 31 * time.Second, 1},
			"10 s each":  {&blobtest.Fault{Pace: 10 * time.Second}, 600 * time.Second, 1000 * time.Second, 0},
		} {
			s.Faults("get", c.fault)
			began, before := time.Now(), reader.Stats()
			f := &follower{t: t, reader: reader, id: id}
			if out, err := f.read(-1); err != nil || out != blob.Read {
				t.Errorf("%s: %v, %v", name, out, err)
			}
			f.want(s.Bytes(id))
			if took := time.Since(began); took < c.least || took > c.most {
				t.Errorf("%s: took %v", name, took)
			}
			if n := reader.Stats().Retries - before.Retries; n != c.retries {
				t.Errorf("%s: %d retries", name, n)
			}
			time.Sleep(time.Minute) // the server's side ends too
		}
	})
}

// While the reader waits for budget no request times out, and the context ends the
// wait.
func TestBudgetIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, reader := piped(t)
		s.Append(id, record(rand.New(rand.NewPCG(1, 1)), 1, 200_000))
		lent := semaphore.NewWeighted(300_000)
		if err := lent.Acquire(t.Context(), 300_000); err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(10 * time.Minute)
			lent.Release(300_000)
		}()
		var got int
		out, err := reader.ReadNew(t.Context(), id, blob.Position{}, -1, lent, func(c blob.Chunk) error {
			got += len(c.Data)
			lent.Release(c.Reserved)
			return nil
		})
		if err != nil || out != blob.Read || got != len(s.Bytes(id))-14 || reader.Stats().Retries != 0 {
			t.Errorf("%v, %v, %d bytes, %+v", out, err, got, reader.Stats())
		}

		if err := lent.Acquire(t.Context(), 300_000); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = reader.ReadNew(ctx, id, blob.Position{}, -1, lent, func(blob.Chunk) error { return nil })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want the context's error", err)
		}
	})
}

// Many readers with chunks as large as the whole budget come through.
func TestReadersDoNotBlockEachOther(t *testing.T) {
	s := blobtest.Start(t)
	r := rand.New(rand.NewPCG(31, 1))
	s.Append(id, record(r, 1, 3000), record(r, 2, 9000), record(r, 3, 500), record(r, 4, 30_000), record(r, 5, 100))
	cfg := quick()
	cfg.ChunkBytes, cfg.MaxRecordBytes = 4000, 60_000
	reader := newReader(t, cfg, newStore(t, s))
	want := int64(len(s.Bytes(id)) - 14)
	lent := semaphore.NewWeighted(cfg.MaxRecordBytes + 8192)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	for range 16 {
		g.Go(func() error {
			var got int64
			_, err := reader.ReadNew(ctx, id, blob.Position{}, -1, lent, func(c blob.Chunk) error {
				got += int64(len(c.Data))
				lent.Release(c.Reserved)
				return nil
			})
			if err == nil && got != want {
				err = fmt.Errorf("%d bytes, want %d", got, want)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestContextEndsARead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, reader := piped(t)
		s.Append(id, `{"a":{}}`)
		for name, fault := range map[string]*blobtest.Fault{
			"answer": {Before: func() { time.Sleep(time.Minute) }},
			"body":   {Stall: true, CutAfter: 3},
			"pause":  {Status: 503, Header: http.Header{"Retry-After": {"50"}}},
		} {
			s.Faults("get", fault)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			_, err := reader.ReadNew(ctx, id, blob.Position{}, -1, &budget{t: t}, func(blob.Chunk) error { return nil })
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, pipeline.ErrTransient) {
				t.Errorf("%s: %v", name, err)
			}
			time.Sleep(2 * time.Minute)
		}
	})
}
