package ledger_test

import (
	"testing"

	"github.com/millrace/millrace/pipeline/ledger"
	"github.com/millrace/millrace/pipeline/ledger/ledgertest"
)

func TestDirectoryKeepsTheLawsOfStores(t *testing.T) {
	ledgertest.Run(t, func(t *testing.T) ledger.Store {
		d, err := ledger.OpenDirectory(t.TempDir() + "/l")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	})
}
