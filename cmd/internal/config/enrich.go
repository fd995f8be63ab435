package config

import (
	"errors"
	"fmt"
	"slices"

	"github.com/millrace/millrace/operators/enrich"
	"github.com/millrace/millrace/schemas"
)

// OpenEnrich reads the files of enrichment; nil when it is off.
//
// Errors: every fault of the files at once, with key paths.
func (c Config) OpenEnrich() (*enrich.Enricher, error) {
	if c.Enrich == nil {
		return nil, nil
	}
	files, err := readFiles("enrich", enrich.Files(*c.Enrich))
	if err != nil {
		return nil, err
	}
	return enrich.New(*c.Enrich, files)
}

// FlowTable is the table of flow rows: with the columns of enrichment where that is
// on. Where it is off, a table that has them keeps them, so that rows of before can
// still land.
func (c Config) FlowTable() schemas.Table {
	t := schemas.EnrichedFlows
	t.Bare = c.Enrich == nil
	return t
}

// checkEnriched reports windows over columns that only enrichment has.
func (c Config) checkEnriched() error {
	if c.Enrich != nil {
		return nil
	}
	var faults []error
	for i, w := range c.Windows {
		faults = append(faults, enrichedColumns(fmt.Sprintf("windows[%d].group_by", i), w.GroupBy), enrichedColumns(fmt.Sprintf("windows[%d].distinct", i), w.Distinct))
	}
	return errors.Join(faults...)
}

func enrichedColumns(path string, names []string) error {
	var faults []error
	for i, name := range names {
		if slices.ContainsFunc(schemas.Enrichment, func(c schemas.Column) bool { return c.Name == name }) {
			faults = append(faults, fmt.Errorf("%s[%d]: %q comes with enrichment: add the section enrich, such as enrich: {}", path, i, name))
		}
	}
	return errors.Join(faults...)
}
