package eventhubs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Checkpoint is how far a partition is acknowledged.
type Checkpoint struct {
	// Sequence is the sequence number of the last message of the acknowledged run.
	Sequence int64 `json:"sequence"`
	// Offset is the service's own, opaque name of the same place, for people.
	Offset string `json:"offset"`
	// Created is when the hub was made: sequence numbers mean something only within
	// one life of a hub.
	Created time.Time `json:"created"`
}

// CheckpointStore keeps the positions of one consumer group of one hub.
type CheckpointStore interface {
	// Load gives the positions by partition; none when there are none yet.
	Load(ctx context.Context) (map[string]Checkpoint, error)
	// Save makes the positions durable, all of them or none. It replaces what was
	// saved. One call at a time.
	Save(ctx context.Context, positions map[string]Checkpoint) error
}

// FileStore keeps positions in one file, which it replaces as a whole.
type FileStore struct {
	path, hub, group string
}

// NewFileStore makes a store. It touches nothing before the first Load or Save.
func NewFileStore(path, hub, consumerGroup string) *FileStore {
	return &FileStore{path: path, hub: hub, group: consumerGroup}
}

// checkpointFile is the file's content.
type checkpointFile struct {
	Version       int                   `json:"version"`
	Hub           string                `json:"hub"`
	ConsumerGroup string                `json:"consumer_group"`
	Partitions    map[string]Checkpoint `json:"partitions"`
}

const checkpointVersion = 1

// Load reads the file.
//
// Errors: a file that is damaged, of another version, or of another hub or group.
func (f *FileStore) Load(context.Context) (map[string]Checkpoint, error) {
	data, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read checkpoints: %w", err)
	}
	var c checkpointFile
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("read checkpoints %q: %w; delete the file to read the hub from its earliest message", f.path, err)
	}
	if c.Version != checkpointVersion {
		return nil, fmt.Errorf("read checkpoints %q: version %d, want %d", f.path, c.Version, checkpointVersion)
	}
	if c.Hub != f.hub || c.ConsumerGroup != f.group {
		return nil, fmt.Errorf("read checkpoints %q: they are of hub %q, consumer group %q, not of %q, %q; use another file", f.path, c.Hub, c.ConsumerGroup, f.hub, f.group)
	}
	return c.Partitions, nil
}

// Save writes a temporary file and renames it, each durable before the next.
func (f *FileStore) Save(_ context.Context, positions map[string]Checkpoint) error {
	data, err := json.MarshalIndent(checkpointFile{checkpointVersion, f.hub, f.group, positions}, "", "  ")
	if err != nil {
		return fmt.Errorf("write checkpoints: %w", err)
	}
	dir := filepath.Dir(f.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("write checkpoints: %w", err)
	}
	if err := replaceFile(f.path, append(data, '\n')); err != nil {
		return fmt.Errorf("write checkpoints: %w", err)
	}
	return nil
}

// replaceFile leaves a file that is the owner's alone, as os.CreateTemp makes it.
func replaceFile(path string, data []byte) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Sync()); err != nil {
		return errors.Join(err, tmp.Close())
	}
	if err = tmp.Close(); err != nil {
		return err
	}
	if err = os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the rename durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
