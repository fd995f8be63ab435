package config

import (
	"errors"
	"fmt"
	"os"

	"github.com/millrace/millrace/operators/filter"
)

// OpenFilters reads the files of the filters and compiles them; nil when there are
// none.
//
// Errors: every fault of the list and of its files at once, with key paths.
func (c Config) OpenFilters() (*filter.Filters, error) {
	if len(c.Filters) == 0 {
		return nil, nil
	}
	files, err := readFiles("filters", filter.Files(c.Filters))
	if err != nil {
		return nil, err
	}
	return filter.New(c.Filters, files)
}

// readFiles reads what a section names, and reports every file that cannot be read.
func readFiles(section string, paths []string) (map[string][]byte, error) {
	files := map[string][]byte{}
	var faults []error
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w: name a file that this user may read", section, err))
			continue
		}
		files[path] = data
	}
	return files, errors.Join(faults...)
}
