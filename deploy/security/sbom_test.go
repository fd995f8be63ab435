//go:build sbom

package security

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// component is what a bill of materials says of one module.
type component struct {
	Name, Version string
	Evidence      struct {
		Licenses []struct{ License struct{ ID string } }
	}
}

// The bills of materials that `make sbom` has just made name every module that is
// linked, in its version, with a licence, and nothing else.
func TestSBOM(t *testing.T) {
	dir := filepath.Join(root, "bin")
	var have []string
	for _, p := range programs {
		data, err := os.ReadFile(filepath.Join(dir, filepath.Base(p)+".cdx.json"))
		if err != nil {
			t.Fatal(err)
		}
		var bill struct {
			BOMFormat, SpecVersion string
			Components             []component
		}
		if err := json.Unmarshal(data, &bill); err != nil || bill.BOMFormat != "CycloneDX" {
			t.Fatal(bill.BOMFormat, bill.SpecVersion, err)
		}
		for _, c := range bill.Components {
			if c.Name == "std" {
				continue
			}
			have = append(have, c.Name+" "+c.Version)
			if len(c.Evidence.Licenses) == 0 {
				t.Errorf("%s: %s has no licence", p, c.Name)
			}
		}
	}
	var want []string
	for _, m := range linked(t) {
		want = append(want, m.Path+" "+m.Version)
	}
	slices.Sort(have)
	if diff := cmp.Diff(want, slices.Compact(have)); diff != "" {
		t.Errorf("modules (-linked +bill):\n%s", diff)
	}
}
