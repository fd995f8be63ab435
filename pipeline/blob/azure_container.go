package blob

import (
	"context"
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
)

// AzureContainer is the client of one container of an account, for a room that
// writes there what is its own, as the ledger does. Logs are never written.
//
// What holds for AzureStore holds here: no retries of the SDK, no redirects, one
// host, no secret in an error.
type AzureContainer struct {
	account *account
	name    string
	client  *container.Client
}

// NewAzureContainer checks account and name and makes a client. It does no I/O.
func NewAzureContainer(c AccountConfig, name string) (*AzureContainer, error) {
	if !validContainer(name) {
		return nil, fmt.Errorf("container %q: want 3 to 63 lower-case letters, digits and dashes", name)
	}
	a, err := newAccount(c)
	if err != nil {
		return nil, err
	}
	return &AzureContainer{account: a, name: name, client: a.service.NewContainerClient(name)}, nil
}

// Client gives the SDK's client. What it says goes through Convert before anyone
// sees it.
func (c *AzureContainer) Client() *container.Client { return c.client }

// Object names a blob of the container in errors.
func (c *AzureContainer) Object(path string) string {
	return c.account.name + "/" + c.name + "/" + path
}

// Convert makes an Error out of the SDK's, with its class and without secrets.
func (c *AzureContainer) Convert(ctx context.Context, op, path string, err error) *Error {
	return c.account.convert(ctx, op, c.Object(path), -1, err)
}

// Close drops idle connections. Calls under way go on.
func (c *AzureContainer) Close() { c.account.http.CloseIdleConnections() }
