package servers

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"

	"github.com/millrace/millrace/deploy/local/process"
)

// DefaultAccount is the storage account of a local Azurite.
const DefaultAccount = "millrace"

// AzuriteOptions says which Azurite to start and where.
type AzuriteOptions struct {
	// Script is the path of azurite's dist/src/blob/main.js.
	Script string
	// Node is the program that runs it; default "node" in PATH.
	Node string
	// Port is the preferred port; 0 takes any free one.
	Port int
	// Account is the storage account, default DefaultAccount; Key its base64
	// key, default a random one.
	Account, Key string
	// More names further accounts, which have the same key.
	More []string
	// Dir is the working directory: Azurite writes its (small) files there
	// although the blobs are kept in memory. Required.
	Dir string
	// MemoryLimitMiB bounds the memory for blobs; 0 leaves Azurite's default,
	// half of the machine.
	MemoryLimitMiB int
	// LogFile takes what the program prints.
	LogFile string
}

// Azurite is a running blob storage emulator.
type Azurite struct {
	*process.Process
	// Endpoint is the service URL with the account as its path, like
	// "http://127.0.0.1:10000/millrace".
	Endpoint     string
	Account, Key string
	Port         int
	// PortMoved says that the preferred port was busy.
	PortMoved bool
}

// StartAzurite starts Azurite with blobs in memory and returns when it answers
// a signed request, so it is ours that answers: 1.1 s warm.
//
// Errors: the program's own message; ctx's cause.
func StartAzurite(ctx context.Context, o AzuriteOptions) (*Azurite, error) {
	if o.Script == "" || o.Dir == "" {
		return nil, errors.New("start azurite: Script and Dir must be set")
	}
	if o.Node == "" {
		o.Node = "node"
	}
	if o.Account == "" {
		o.Account = DefaultAccount
	}
	if o.Key == "" {
		var key [64]byte
		if _, err := rand.Read(key[:]); err != nil {
			return nil, fmt.Errorf("start azurite: make key: %w", err)
		}
		o.Key = base64.StdEncoding.EncodeToString(key[:])
	}
	var a *Azurite
	err := retryPorts(ctx, func(ctx context.Context) (err error) {
		a, err = startAzurite(ctx, o)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("start azurite: %w", err)
	}
	return a, nil
}

func startAzurite(ctx context.Context, o AzuriteOptions) (*Azurite, error) {
	ports, err := reserve(o.Port)
	if err != nil {
		return nil, err
	}
	defer bound(ports)
	port := ports[0]
	a := &Azurite{
		Account: o.Account, Key: o.Key, Port: port.Number, PortMoved: port.Moved,
	}
	a.Endpoint = a.EndpointOf(o.Account)
	client, err := pingClient(a)
	if err != nil {
		return nil, err
	}
	port.Release()
	a.Process, err = process.Start(process.Config{
		Name: "azurite", Path: o.Node, Node: true, Args: o.arguments(port.Number),
		Env:     []string{"AZURITE_ACCOUNTS=" + o.accounts()},
		Dir:     o.Dir,
		LogFile: o.LogFile,
	})
	if err != nil {
		return nil, err
	}
	return a, a.waitReady(ctx, client, ports)
}

// accounts lists them with their keys, as Azurite wants it.
func (o AzuriteOptions) accounts() string {
	text := o.Account + ":" + o.Key
	for _, name := range o.More {
		text += ";" + name + ":" + o.Key
	}
	return text
}

// EndpointOf gives the service URL of one of the accounts.
func (a *Azurite) EndpointOf(account string) string {
	return fmt.Sprintf("http://127.0.0.1:%d/%s", a.Port, account)
}

func (o AzuriteOptions) arguments(port int) []string {
	args := []string{
		o.Script, "--silent",
		"--disableTelemetry", // It would call home.
		"--inMemoryPersistence",
		"--skipApiVersionCheck",
		"--blobHost", "127.0.0.1",
		"--blobPort", fmt.Sprint(port),
	}
	if o.MemoryLimitMiB > 0 {
		args = append(args, "--extentMemoryLimit", fmt.Sprint(o.MemoryLimitMiB))
	}
	return args
}

// waitReady asks until the server knows our key, and ends the child if not.
func (a *Azurite) waitReady(ctx context.Context, client *service.Client, ports []*process.Port) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if _, err := client.GetProperties(ctx, nil); err == nil {
			return nil
		}
		select {
		case <-a.Done():
			return exitCause(a.Process, ports)
		case <-ctx.Done():
			a.Kill()
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// pingClient asks once per call and keeps no connection.
func pingClient(a *Azurite) (*service.Client, error) {
	cred, err := azblob.NewSharedKeyCredential(a.Account, a.Key)
	if err != nil {
		return nil, fmt.Errorf("account %q: %w", a.Account, err)
	}
	return service.NewClientWithSharedKeyCredential(a.Endpoint, cred, &service.ClientOptions{
		ClientOptions: azcore.ClientOptions{
			Retry: policy.RetryOptions{MaxRetries: -1},
			Transport: &http.Client{
				Transport:     &http.Transport{Proxy: nil, DisableKeepAlives: true},
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			},
		},
	})
}
