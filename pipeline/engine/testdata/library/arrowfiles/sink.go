// Package arrowfiles lands pieces as files of Arrow streams in a folder, each exactly once.
package arrowfiles

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/apache/arrow/go/v17/arrow/ipc"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
)

// Sink is a pipeline.Sink. A file's name says which piece it holds, and a rename
// makes it appear as a whole: so a probe is a look at the folder.
type Sink struct {
	Dir    string
	Tables []schemas.Table
}

// Land writes one file. The folder's lock keeps it apart from a fence.
func (s *Sink) Land(_ context.Context, batch pipeline.BatchID, epoch uint64, p pipeline.Piece) error {
	name, err := s.name(batch, p.PieceRef)
	if err != nil {
		return err
	}
	for _, t := range s.Tables {
		if t.Name != p.Table {
			continue
		}
		if err := p.Check(t); err != nil {
			return err
		}
	}
	if p.Rows == 0 {
		return nil
	}
	var text bytes.Buffer
	w := ipc.NewWriter(&text, ipc.WithSchema(p.Record.Schema()))
	if err := errors.Join(w.Write(p.Record), w.Close()); err != nil {
		return err
	}
	return s.locked(func() error {
		fence, err := s.epoch(batch.Ledger(), batch.Shard())
		if err != nil {
			return err
		}
		if epoch < fence {
			return pipeline.ErrFenced
		}
		return write(name, text.Bytes())
	})
}

// Probe looks for the files.
func (s *Sink) Probe(_ context.Context, batch pipeline.BatchID, pieces []pipeline.PieceRef) ([]int64, error) {
	rows := make([]int64, len(pieces))
	for i, p := range pieces {
		name, err := s.name(batch, p)
		if err != nil {
			return nil, err
		}
		switch _, err := os.Stat(name); {
		case err == nil:
			rows[i] = p.Rows
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	return rows, nil
}

// Fence writes the epoch. Nobody lands meanwhile.
func (s *Sink) Fence(_ context.Context, ledger uint16, shard int, epoch uint64) error {
	return s.locked(func() error {
		have, err := s.epoch(ledger, shard)
		switch {
		case err != nil:
			return err
		case epoch < have:
			return pipeline.ErrFenced
		}
		data, err := json.Marshal(epoch)
		if err != nil {
			return err
		}
		return write(s.fence(ledger, shard), data)
	})
}

// name is the file of a piece: everything that tells it from others.
func (s *Sink) name(batch pipeline.BatchID, p pipeline.PieceRef) (string, error) {
	for _, t := range s.Tables {
		if t.Name == p.Table {
			key := pipeline.Hash([]byte(strings.Join(p.MACs, " ")))
			return filepath.Join(s.Dir, p.Table, fmt.Sprintf("%d-%s-%d-%s.arrow", batch, p.Partition, p.Rows, key)), nil
		}
	}
	return "", fmt.Errorf("table %q is unknown to the sink", p.Table)
}

func (s *Sink) fence(ledger uint16, shard int) string {
	return filepath.Join(s.Dir, "fence", fmt.Sprintf("%d-%d", ledger, shard))
}

func (s *Sink) epoch(ledger uint16, shard int) (epoch uint64, err error) {
	data, err := os.ReadFile(s.fence(ledger, shard))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return epoch, json.Unmarshal(data, &epoch)
}

// locked runs f while no other process, and no other goroutine, does.
func (s *Sink) locked(f func() error) error {
	lock, err := os.OpenFile(filepath.Join(s.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	return f()
}

// write makes a file appear, whole and durable.
func write(name string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.Create(name + ".tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(name+".tmp", name); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
