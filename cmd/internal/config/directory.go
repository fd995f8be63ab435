package config

import (
	"fmt"
	"time"
)

// Directory is a folder of this machine whose files are read as blobs.
type Directory struct {
	// Path of the folder. Links in it are passed over, wherever they point.
	// Required.
	Path string `yaml:"path"`
	// Account and Container say that the folder holds the blobs of one container: a
	// file's name below Path is the blob's. Without both, the first two folders below
	// Path are account and container, as in PATH/account/container/…/PT1H.json.
	// Default none.
	Account   string `yaml:"account"`
	Container string `yaml:"container"`
}

// DirectorySource says how the directories are read.
type DirectorySource struct {
	// Watch goes on after the first pass and reads what is new of files that grow.
	// Default false: one pass, which is the end of the input; then run ends.
	Watch bool `yaml:"watch"`
	// Interval is the time from one pass to the next. Default 5s, at least 100ms.
	Interval time.Duration `yaml:"interval"`
	// Suffix is what names of flow logs end with. Default /PT1H.json.
	Suffix string `yaml:"suffix"`
}

// checkDirectories reports the faults of the section directories, and of the others
// where there are directories.
func (c Config) checkDirectories(check func(ok bool, key, format string, args ...any)) {
	check(len(c.Accounts) == 0 && len(c.EventHubs) == 0, "directories", "a pipeline reads directories or storage accounts, not both: give the directories a configuration with a state folder of its own")
	check(c.DirectorySource.Interval >= 100*time.Millisecond, "directory_source.interval", "%v: want at least 100ms", c.DirectorySource.Interval)
	trees, taken := 0, map[[2]string]bool{}
	for i, d := range c.Directories {
		key := fmt.Sprintf("directories[%d]", i)
		check(d.Path != "", key+".path", "missing: name the folder that holds the files")
		check((d.Account == "") == (d.Container == ""), key, "want account and container, or neither")
		if d.Account == "" {
			trees++
			continue
		}
		of := [2]string{d.Account, d.Container}
		check(!taken[of], key, "there is another one for container %q of account %q", d.Container, d.Account)
		taken[of] = true
	}
	check(trees <= 1, "directories", "%d of them have no account and container: at most one can", trees)
}
