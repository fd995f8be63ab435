package assembly

import (
	"time"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/pipeline/blob"
)

// forever is longer than anything is kept. The files of directories have no age
// limit: a tree may hold the logs of years ago.
const forever = 100 * 365 * 24 * time.Hour

// openDirectories opens the folders and makes the reader over them.
func (p *Pipeline) openDirectories(cfg config.Config) error {
	var folders []blob.DirectoryConfig
	for _, d := range cfg.Directories {
		folders = append(folders, blob.DirectoryConfig{Path: d.Path, Account: d.Account, Container: d.Container})
	}
	var err error
	if p.files, err = blob.NewDirectoryStore(folders); err != nil {
		return err
	}
	p.Reader, err = newReader(p.files)
	return err
}

// blobs is what the reader reads from.
func (p *Pipeline) blobs() blob.Store {
	if p.files != nil {
		return p.files
	}
	return p.store
}
