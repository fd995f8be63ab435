package check

import (
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/cmd/internal/config"
)

// directories looks at the folders that are read.
func (r *run) directories() {
	for i, d := range r.cfg.Directories {
		key := fmt.Sprintf("directories[%d].path", i)
		if d.Path == "" {
			continue
		}
		info, err := os.Stat(d.Path)
		switch {
		case err != nil:
			r.add(Fault, key, "%v: name a folder that can be reached", err)
		case !info.IsDir():
			r.add(Fault, key, "%q is no folder: name the folder that holds the files", d.Path)
		case unix.Access(d.Path, unix.R_OK|unix.X_OK) != nil:
			r.add(Fault, key, "this user may not list %q: give it the rights to read and enter it", d.Path)
		case info.Mode().Perm()&worldWritable != 0:
			r.add(Warn, key, "everybody on this machine may write into %q, and what they write is landed: chmod o-w it", d.Path)
		default:
			r.add(OK, key, "the folder can be read")
		}
	}
}

const worldWritable fs.FileMode = 0o002

// files reads those of filters and enrichment, as a start does.
func (r *run) files() {
	if len(r.cfg.Filters) > 0 && r.whole("filters") {
		f, err := r.cfg.OpenFilters()
		r.read("filters", err)
		if f != nil && err == nil {
			r.add(OK, "filters", "the filters and their files can be used")
		}
	}
	if r.cfg.Enrich != nil && r.whole("enrich") {
		_, err := r.cfg.OpenEnrich()
		r.read("enrich", err)
		if err == nil {
			r.add(OK, "enrich", "the files of enrichment can be used")
		}
	}
}

// read tells of the faults of a section's files.
func (r *run) read(section string, err error) {
	for _, f := range config.Split(err) {
		key := f.Key
		if key == "" {
			key = section
		}
		r.add(Fault, key, "%s", f.Text)
	}
}
