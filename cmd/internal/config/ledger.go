package config

import (
	"fmt"
	"time"

	"github.com/millrace/millrace/pipeline/ledger"
)

// Ledger says where the ledger is, when it is not the folder of state.
type Ledger struct {
	// Azure keeps the ledger in a container, which several instances may share: one of
	// them owns it, the others stand by. Default none: the folder of state, which one
	// process owns.
	Azure *LedgerAzure `yaml:"azure"`
	// Expiry is how long the owner of a shared ledger is left alone that gives no sign
	// of life, before another instance takes over. Default 60s, at least 5s.
	Expiry time.Duration `yaml:"expiry"`
}

// LedgerAzure is a container of a storage account.
type LedgerAzure struct {
	// Name of the account, as in https://NAME.blob.core.windows.net. Required. Not one
	// that holds the logs, if their account may only be read.
	Name string `yaml:"name"`
	// Endpoint is the account's blob endpoint, without user, key or query. Required.
	Endpoint string `yaml:"endpoint"`
	// Container that holds the ledger and nothing else that matters; it is made at the
	// first start where the credential may do so. Required.
	Container string `yaml:"container"`
	// Prefix of every object's name, so that several pipelines may share a container.
	// Letters, digits, '-', '_' and '/'. Default "".
	Prefix string `yaml:"prefix"`
	// Key names the account key. One of key, sas and identity.
	Key Reference `yaml:"key" reload:"live"`
	// SAS names a shared access signature with the rights read, add, create, write,
	// delete and list on the container. One of key, sas and identity.
	SAS Reference `yaml:"sas" reload:"live"`
	// Identity writes with an identity of Entra ID, which needs the role Storage Blob
	// Data Contributor on the container. Default: the pipeline's identity, unless there is
	// a key or a SAS.
	Identity *Identity `yaml:"identity" reload:"live"`
	// PrivateNetwork allows the endpoint's name to resolve to a private address, as it
	// does behind Azure Private Link. Default false.
	PrivateNetwork bool `yaml:"private_network" reload:"live"`
}

// account is the container's account as the others are configured.
func (l LedgerAzure) account() Account {
	return Account{Name: l.Name, Endpoint: l.Endpoint, Containers: []string{l.Container}, Key: l.Key, SAS: l.SAS, Identity: l.Identity, PrivateNetwork: l.PrivateNetwork}
}

// LedgerAccounts gives the account of the ledger's container; none for a folder.
func (c Config) LedgerAccounts() []Account {
	if c.Ledger.Azure == nil {
		return nil
	}
	return []Account{c.Ledger.Azure.account()}
}

const defaultExpiry = time.Minute

// check reports every fault.
func (l Ledger) check(check checker) {
	check(l.Expiry >= ledger.MinExpiry, "ledger.expiry", "%v: want at least %v", l.Expiry, ledger.MinExpiry)
	if l.Azure == nil {
		return
	}
	const key = "ledger.azure"
	check(l.Azure.Name != "", key+".name", "missing")
	check(isURL(l.Azure.Endpoint), key+".endpoint", "no plain http(s) address: give the blob endpoint without user or key, such as https://NAME.blob.core.windows.net")
	check(l.Azure.Container != "", key+".container", "missing: name the container of the ledger")
	given := credentialCount(l.Azure.Key.Set(), l.Azure.SAS.Set(), l.Azure.Identity != nil)
	check(given == 1, key, "want exactly one of key, sas and identity, such as identity: {kind: default} or key: {env: NAME}")
	l.Azure.Identity.validate(key+".identity", check)
}

// LedgerPlace names the place of the ledger for people.
func (c Config) LedgerPlace() string {
	if a := c.Ledger.Azure; a != nil {
		place := a.Name + "/" + a.Container
		if a.Prefix != "" {
			place += "/" + a.Prefix
		}
		return fmt.Sprintf("container %q", place)
	}
	return fmt.Sprintf("folder %q", c.State)
}
