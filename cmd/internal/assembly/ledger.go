package assembly

import (
	"errors"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/pipeline/blob"
)

// ledgerAccount resolves the account of a shared ledger and its credential.
func ledgerAccount(cfg config.Config) (blob.AccountConfig, error) {
	a := cfg.Ledger.Azure
	key, err := a.Key.Resolve()
	faults := []error{prefixed(err, "ledger.azure.key")}
	sas, err := a.SAS.Resolve()
	faults = append(faults, prefixed(err, "ledger.azure.sas"))
	return blob.AccountConfig{Name: a.Name, Endpoint: a.Endpoint, SharedKey: key, SAS: sas, PrivateNetwork: a.PrivateNetwork}, errors.Join(faults...)
}
