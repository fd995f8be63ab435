package traffic

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// WriteTree writes the blobs of all interfaces for some whole hours, from the
// one that contains start, as files dir/<container>/<path>, and returns the truth
// about them. It uses all processors and returns when its goroutines are gone.
// progress, if not nil, is called after each file, by one goroutine at a time.
//
// Errors: ctx's, or those of the file system; files that were begun stay.
func (e *Estate) WriteTree(ctx context.Context, dir string, start time.Time, hours int, progress func(Stats)) (Truth, error) {
	truth := newLedger(e.cfg).truth
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range hours * len(e.nics) {
		nic, at := i%len(e.nics), start.Add(time.Duration(i/len(e.nics))*time.Hour)
		group.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			one, err := e.writeFile(dir, nic, at)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			truth.Merge(one)
			if progress != nil {
				t := truth.Totals
				progress(Stats{
					Tuples: t.Tuples, Malformed: t.Malformed, Records: t.Records, Appends: t.Appends,
					Bytes: t.Bytes, Blobs: uint64(len(truth.Blobs)), Position: at,
				})
			}
			return nil
		})
	}
	err := group.Wait()
	truth.sort()
	return truth, err
}

func (e *Estate) writeFile(dir string, nic int, at time.Time) (truth Truth, err error) {
	name := e.Hour(nic, at)
	path := filepath.Join(dir, name.Container, filepath.FromSlash(name.Path))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return Truth{}, fmt.Errorf("write hour: %w", err)
	}
	f, err := os.Create(path)
	if err != nil {
		return Truth{}, fmt.Errorf("write hour: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriterSize(f, 1<<20)
	truth, err = e.WriteHour(w, nic, at)
	if err != nil {
		return Truth{}, err
	}
	return truth, w.Flush()
}
