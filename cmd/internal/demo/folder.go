package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// recordName is the file that marks a folder as a demo's and says what was last
// done in it.
const recordName = "demo.json"

// lockName is the file that the running demo holds a lock on.
const lockName = "lock"

// ErrBusy says that another demo runs in the folder.
var ErrBusy = errors.New("another demo is running in it")

// record is what a demo leaves for the next one in its folder.
type record struct {
	ClickHouse string   `json:"clickhouse"` // URL of the user's server; "" for the embedded one
	Database   string   `json:"database"`   // "" before the first run
	Seeds      []uint64 `json:"seeds"`      // whose rows the database holds
}

// LockFolder makes the folder a demo's own and keeps other demos out until unlock
// is called. It refuses a folder with content that no demo has made, since a demo
// removes what the last one left.
//
// Errors: ErrBusy; a folder of something else.
func LockFolder(dir string) (unlock func(), err error) {
	if err := checkFolder(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		return nil, fmt.Errorf("folder %q: %w: stop that one, or name another folder with --dir", dir, ErrBusy)
	}
	unlock = func() { file.Close() }
	if _, err := os.Stat(filepath.Join(dir, recordName)); errors.Is(err, fs.ErrNotExist) {
		err = writeRecord(dir, record{})
		if err != nil {
			unlock()
			return nil, err
		}
	}
	return unlock, nil
}

// checkFolder lets pass what does not exist, is empty, or is a demo's.
func checkFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	foreign := false
	for _, e := range entries {
		if e.Name() == recordName {
			return nil
		}
		foreign = foreign || e.Name() != lockName
	}
	if foreign {
		return fmt.Errorf("folder %q holds files that no demo made, and a demo begins by cleaning up: name an empty or new folder with --dir", dir)
	}
	return nil
}

func readRecord(dir string) (record, error) {
	var r record
	path := filepath.Join(dir, recordName)
	data, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("read %q: %w: start without --keep", path, err)
	}
	return r, nil
}

func writeRecord(dir string, r record) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, recordName), append(data, '\n'), 0o600)
}

// embeddedDatabase is the demo's database in a ClickHouse of its own.
const embeddedDatabase = "millrace"

// prepare cleans the folder, or keeps the tables that are there, and chooses the
// database.
//
// Only tables are ever kept. The blobs were in Azurite's memory, so a ledger of an
// earlier run would speak of blobs that are gone, and one that was killed could
// never finish what it had begun; every run has a ledger of its own.
func (d *demo) prepare() error {
	last, err := readRecord(d.cfg.Dir)
	if err != nil && d.cfg.Keep {
		return err
	}
	now := record{ClickHouse: d.cfg.ClickHouse.URL, Database: d.newDatabase()}
	old := []string{"state", "azurite", "logs", "clickhouse", truthName, estateName, configName, storageKeyName, connectionName}
	if kept := d.cfg.Keep && last.Database != "" && last.ClickHouse == now.ClickHouse; kept {
		if slices.Contains(last.Seeds, d.cfg.Traffic.Seed) {
			return fmt.Errorf("the tables that --keep keeps hold the blobs of seed %d already: choose another --seed", d.cfg.Traffic.Seed)
		}
		now.Database, now.Seeds = last.Database, last.Seeds
		old = slices.DeleteFunc(old, func(name string) bool { return name == "clickhouse" })
	} else if d.cfg.Keep {
		d.say.line("--keep: there are no tables of an earlier demo here, beginning with new ones")
		d.cfg.Keep = false
	}
	for _, name := range old {
		if err := os.RemoveAll(d.path(name)); err != nil {
			return fmt.Errorf("clean folder %q: %w", d.cfg.Dir, err)
		}
	}
	for _, name := range []string{"azurite", "logs"} {
		if err := os.MkdirAll(d.path(name), 0o700); err != nil {
			return err
		}
	}
	now.Seeds = append(now.Seeds, d.cfg.Traffic.Seed)
	d.tables.database, d.tables.server = now.Database, d.cfg.ClickHouse
	return writeRecord(d.cfg.Dir, now)
}

// newDatabase names the database. On somebody's server it is always a new one, and
// nothing there is ever dropped.
func (d *demo) newDatabase() string {
	if d.cfg.ClickHouse.URL == "" {
		return embeddedDatabase
	}
	return fmt.Sprintf("millrace_demo_%s_%d", d.began.UTC().Format("20060102_150405"), os.Getpid())
}
