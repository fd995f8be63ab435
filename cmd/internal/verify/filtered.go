package verify

import (
	"github.com/apache/arrow/go/v17/arrow"

	"github.com/millrace/millrace/operators/filter"
)

// filtered says which rows of a stretch landed, where filters left some out: nil
// means all, or that it is not known. Which rows they were is recorded nowhere; today's
// filters tell it, when they leave out as many.
func (c *comparison) filtered(x stretch, rec arrow.Record) ([]bool, error) {
	if x.filtered == 0 || c.filter == nil {
		return nil, nil
	}
	out, err := c.filter.Apply(c.Allocator, rec)
	if err != nil {
		return nil, err
	}
	defer out.Flows.Release()
	if rec.NumRows()-out.Flows.NumRows() != x.filtered {
		return nil, nil
	}
	kept := make([]bool, rec.NumRows())
	for _, row := range out.Kept {
		kept[row] = true
	}
	return kept, nil
}

// readFilter finds the filters of today, nil without any.
func (v *verifier) readFilter() error {
	if v.Transforms == nil || v.Level != Full {
		return nil
	}
	list, err := v.Transforms()
	if err != nil {
		return err
	}
	for _, t := range list {
		if t.Name == filter.Name {
			v.filter = t.Current()
		}
	}
	return nil
}
