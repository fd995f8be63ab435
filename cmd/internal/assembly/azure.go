package assembly

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/millrace/millrace/cmd/internal/config"
	"github.com/millrace/millrace/cmd/internal/identity"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/secret"
)

// Blobs makes the client of every storage account; it connects nothing.
//
// Errors: every fault at once, with its key.
func Blobs(cfg config.Config) (*blob.AzureStore, error) {
	accounts, err := storageAccounts(cfg)
	if err != nil {
		return nil, err
	}
	return blob.NewAzureStore(accounts)
}

// storageAccounts resolves secrets and identities.
func storageAccounts(cfg config.Config) ([]blob.AccountConfig, error) {
	var accounts []blob.AccountConfig
	var faults []error
	for i, a := range cfg.Accounts {
		c, err := resolveAccount(fmt.Sprintf("accounts[%d]", i), a)
		accounts, faults = append(accounts, c), append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return accounts, nil
}

// resolveAccount reads the secrets of one account, or makes its identity.
//
// Errors: every fault at once, with its key below the given one.
func resolveAccount(key string, a config.Account) (blob.AccountConfig, error) {
	c := blob.AccountConfig{Name: a.Name, Endpoint: a.Endpoint, PrivateNetwork: a.PrivateNetwork}
	var faults []error
	for _, s := range []struct {
		name string
		from config.Reference
		to   *secret.Secret
	}{{"key", a.Key, &c.SharedKey}, {"sas", a.SAS, &c.SAS}, {"connection_string", a.ConnectionString, &c.ConnectionString}} {
		var err error
		*s.to, err = s.from.Resolve()
		faults = append(faults, prefixed(err, "%s.%s", key, s.name))
	}
	if a.Identity != nil {
		var err error
		c.Token, err = accountIdentity(a)
		faults = append(faults, prefixed(err, "%s.identity", key))
	}
	return c, errors.Join(faults...)
}

func accountIdentity(a config.Account) (azcore.TokenCredential, error) {
	u, err := url.Parse(a.Endpoint)
	if err != nil {
		return nil, errors.New("the endpoint is no URL") // the URL may hold a secret
	}
	return identity.New(*a.Identity, u.Hostname())
}

func prefixed(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}
