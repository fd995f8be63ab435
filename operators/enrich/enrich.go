package enrich

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/millrace/millrace/pipeline"
)

// Name stands for enrichment in manifests.
const Name = "enrich"

// recipe names the content of the files by pipeline.Hash; "" is none.
type recipe struct {
	Format  int    `json:"format"`
	Names   string `json:"names,omitempty"`
	Country string `json:"country,omitempty"`
	ASN     string `json:"asn,omitempty"`
}

// recipeFormat rises when the same data would come to give other columns.
const recipeFormat = 1

// Enricher is one version of the files. It implements pipeline.Transform.
type Enricher struct {
	recipe []byte
	data   map[string][]byte

	names     *names    // nil without a file, like the others
	countries *database // nil
	systems   *database // nil
	memos     pool
}

var _ pipeline.Transform = (*Enricher)(nil)

// New makes an enricher. files holds the content of what Files lists; it is kept.
//
// Errors: every fault of the files at once, with key path and file, those of the
// names file with their line.
func New(c Config, files map[string][]byte) (*Enricher, error) {
	r := recipe{Format: recipeFormat}
	data := map[string][]byte{}
	for _, f := range []struct {
		path string
		hash *string
	}{{c.NamesFile, &r.Names}, {c.CountryFile, &r.Country}, {c.ASNFile, &r.ASN}} {
		if f.path != "" {
			*f.hash = pipeline.Hash(files[f.path])
			data[*f.hash] = files[f.path]
		}
	}
	label := func(key, path string) string { return fmt.Sprintf("enrich.%s: file %q", key, path) }
	return open(r, data, label("names_file", c.NamesFile), label("country_file", c.CountryFile), label("asn_file", c.ASNFile))
}

// Restore makes the enricher of a recipe again; data gives the content that it
// names.
//
// Errors: a recipe of another format, or content that data does not have.
func Restore(text []byte, data func(hash string) ([]byte, error)) (*Enricher, error) {
	var r recipe
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("restore enrichment: %w", err)
	}
	if r.Format != recipeFormat {
		return nil, fmt.Errorf("restore enrichment: format %d, this program knows %d: use the release that wrote it", r.Format, recipeFormat)
	}
	contents := map[string][]byte{}
	for _, hash := range []string{r.Names, r.Country, r.ASN} {
		if hash == "" {
			continue
		}
		content, err := data(hash)
		if err != nil {
			return nil, fmt.Errorf("restore enrichment: %w", err)
		}
		contents[hash] = content
	}
	return open(r, contents, "restore enrichment: names", "restore enrichment: countries", "restore enrichment: autonomous systems")
}

func open(r recipe, data map[string][]byte, names, countries, systems string) (*Enricher, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("enrichment: %w", err)
	}
	e := &Enricher{recipe: text, data: data}
	var faults []error
	try := func(hash, label string, read func([]byte) error) {
		if hash == "" {
			return
		}
		if err := read(data[hash]); err != nil {
			for _, fault := range each(err) {
				faults = append(faults, fmt.Errorf("%s: %w", label, fault))
			}
		}
	}
	try(r.Names, names, func(b []byte) (err error) { e.names, err = parseNames(b); return err })
	try(r.Country, countries, func(b []byte) (err error) { e.countries, err = openCountries(b); return err })
	try(r.ASN, systems, func(b []byte) (err error) { e.systems, err = openSystems(b); return err })
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return e, nil
}

// each takes apart what errors.Join put together.
func each(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// Recipe implements pipeline.Transform.
func (e *Enricher) Recipe() []byte { return e.recipe }

// Data implements pipeline.Transform: the files' content.
func (e *Enricher) Data() map[string][]byte { return e.data }
