package assembly

import (
	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/pipeline/blob"
)

// ledgerAccount resolves the account of a shared ledger and its credential.
func ledgerAccount(cfg config.Config) (blob.AccountConfig, error) {
	return resolveAccount("ledger.azure", cfg.LedgerAccounts()[0])
}
