package blob

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	azblob "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/secret"
)

// AccountConfig is one storage account with one credential: exactly one of
// SharedKey, SAS, ConnectionString and Token is set.
type AccountConfig struct {
	// Name of the account, as it stands in pipeline.BlobID.
	Name string
	// Endpoint is the URL of the blob service, without a query. Default
	// https://NAME.blob.core.windows.net, or what the connection string says.
	Endpoint string
	// SharedKey is the account key, base64.
	SharedKey secret.Secret
	// SAS is a shared access signature, with or without the leading question mark.
	// Rights needed: read and list.
	SAS secret.Secret
	// ConnectionString as the portal shows it, with a key or a SAS.
	ConnectionString secret.Secret
	// Token gives tokens, for an identity with the role Storage Blob Data Reader.
	Token azcore.TokenCredential
	// PrivateNetwork allows the endpoint's name to resolve to a private address, as
	// it does behind Azure Private Link. An endpoint that is an address itself needs
	// no such leave.
	PrivateNetwork bool
	// Dial replaces the dialer, and with it the check of addresses. For tests.
	Dial DialFunc
}

// AzureStore reads blobs of Azure Blob Storage, sovereign clouds and Azurite
// included. It implements Store; ListPage serves the sweeper.
//
// The SDK's own retries are off: Reader and ListPage have their rules. Redirects
// are not followed, a credential goes to the configured endpoint only, and the
// address behind the endpoint's name is checked when it is dialled.
type AzureStore struct {
	accounts atomic.Pointer[map[string]*account] // the map itself never changes
	lists    listCounters
}

type account struct {
	name    string
	service *service.Client
	http    *http.Client
	hide    *scrubber
}

// NewAzureStore checks the accounts, reporting every fault at once, and makes a
// client for each. It does no I/O.
func NewAzureStore(accounts []AccountConfig) (*AzureStore, error) {
	made, err := newAccounts(accounts)
	if len(accounts) == 0 {
		err = errors.New("no storage account configured")
	}
	if err != nil {
		return nil, err
	}
	s := &AzureStore{}
	s.accounts.Store(&made)
	return s, nil
}

func newAccounts(accounts []AccountConfig) (map[string]*account, error) {
	made := make(map[string]*account, len(accounts))
	var faults []error
	for _, c := range accounts {
		a, err := newAccount(c)
		switch {
		case err != nil:
			faults = append(faults, err)
		case made[c.Name] != nil:
			faults = append(faults, fmt.Errorf("storage account %q: configured twice", c.Name))
		default:
			made[c.Name] = a
		}
	}
	return made, errors.Join(faults...)
}

// Renew makes clients of accounts that are new, or have another credential now. Each
// request after the call of apply uses them; those under way end as they began.
// Accounts that are not among these stay as they are. One Renew at a time.
//
// Errors: as NewAzureStore.
func (s *AzureStore) Renew(accounts []AccountConfig) (apply func(), err error) {
	made, err := newAccounts(accounts)
	if err != nil {
		return nil, err
	}
	return func() {
		old := *s.accounts.Load()
		all := maps.Clone(old)
		maps.Copy(all, made)
		s.accounts.Store(&all)
		for name := range made {
			if a := old[name]; a != nil {
				a.http.CloseIdleConnections()
			}
		}
	}, nil
}

// Close drops idle connections. Calls under way go on.
func (s *AzureStore) Close() {
	for _, a := range *s.accounts.Load() {
		a.http.CloseIdleConnections()
	}
}

func newAccount(c AccountConfig) (*account, error) {
	if c.Name == "" {
		return nil, errors.New("storage account: no name")
	}
	endpoint, cred, err := credential(c)
	if err != nil {
		return nil, fmt.Errorf("storage account %q: %w", c.Name, err)
	}
	a := &account{name: c.Name, hide: newScrubber(c, cred)}
	if a.http, err = httpClient(c, endpoint); err != nil {
		return nil, fmt.Errorf("storage account %q: %w", c.Name, err)
	}
	options := &service.ClientOptions{ClientOptions: policy.ClientOptions{
		Transport: a.http,
		Retry:     policy.RetryOptions{MaxRetries: -1},
		Telemetry: policy.TelemetryOptions{ApplicationID: "millrace"},
	}}
	switch {
	case cred.token != nil:
		a.service, err = service.NewClient(endpoint.String(), cred.token, options)
	case cred.key != nil:
		a.service, err = service.NewClientWithSharedKeyCredential(endpoint.String(), cred.key, options)
	default:
		signed := *endpoint
		signed.RawQuery = cred.sas
		a.service, err = service.NewClientWithNoCredential(signed.String(), options)
	}
	if err != nil {
		return nil, fmt.Errorf("storage account %q: %s", c.Name, a.hide.text(err.Error()))
	}
	return a, nil
}

// Get makes one GET of a range.
func (s *AzureStore) Get(ctx context.Context, id pipeline.BlobID, offset, count int64, ifMatch string) (Response, error) {
	fail := func(err error) (Response, error) { return Response{}, err }
	a, err := s.account("get blob", id.String(), id.Account)
	if err != nil {
		return fail(err)
	}
	if !validPath(id.Path) || !validContainer(id.Container) {
		return fail(&Error{Op: "get blob", Object: id.String(), Offset: offset, Detail: "no name of a blob"})
	}
	options := &azblob.DownloadStreamOptions{Range: azblob.HTTPRange{Offset: offset, Count: count}}
	if ifMatch != "" {
		etag := azcore.ETag(ifMatch)
		options.AccessConditions = &azblob.AccessConditions{
			ModifiedAccessConditions: &azblob.ModifiedAccessConditions{IfMatch: &etag},
		}
	}
	client := a.service.NewContainerClient(id.Container).NewBlobClient(id.Path)
	resp, err := client.DownloadStream(ctx, options)
	if err != nil {
		return fail(a.convert(ctx, "get blob", id.String(), offset, err))
	}
	r, err := response(resp.DownloadResponse)
	if err != nil {
		_ = resp.Body.Close()
		return fail(&Error{Op: "get blob", Object: id.String(), Offset: offset, Kind: KindUnavailable, Detail: err.Error()})
	}
	return r, nil
}

func response(resp azblob.DownloadResponse) (Response, error) {
	if resp.ContentLength == nil || *resp.ContentLength < 0 {
		return Response{}, errors.New("the answer has no length")
	}
	r := Response{Body: resp.Body, Length: *resp.ContentLength, Total: *resp.ContentLength}
	if resp.ETag != nil {
		r.ETag = string(*resp.ETag)
	}
	if resp.ContentRange == nil {
		return r, nil
	}
	first, total, ok := contentRange(*resp.ContentRange)
	if !ok {
		return Response{}, errors.New("the answer has an odd Content-Range")
	}
	r.Offset, r.Total = first, total
	return r, nil
}

// contentRange reads "bytes first-last/total".
func contentRange(s string) (first, total int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	span, size, ok2 := strings.Cut(s, "/")
	from, _, ok3 := strings.Cut(span, "-")
	first, err := strconv.ParseInt(from, 10, 64)
	total, err2 := strconv.ParseInt(size, 10, 64)
	return first, total, ok && ok2 && ok3 && err == nil && err2 == nil && first >= 0 && total >= 0
}

func (s *AzureStore) account(op, object, name string) (*account, error) {
	a := (*s.accounts.Load())[name]
	if a == nil {
		return nil, &Error{Op: op, Object: object, Offset: -1, Detail: fmt.Sprintf("storage account %q is not configured", name)}
	}
	return a, nil
}

// credentials is what a configuration comes down to: one of the three is set.
type credentials struct {
	token azcore.TokenCredential
	key   *service.SharedKeyCredential
	sas   string
	raw   []string // secrets in it
}

// credential finds the one credential and the endpoint. Its errors hold no secret.
func credential(c AccountConfig) (*url.URL, credentials, error) {
	given := 0
	for _, set := range []bool{!c.SharedKey.IsZero(), !c.SAS.IsZero(), !c.ConnectionString.IsZero(), c.Token != nil} {
		if set {
			given++
		}
	}
	if given != 1 {
		return nil, credentials{}, fmt.Errorf("%d credentials, want one of key, SAS, connection string, identity", given)
	}
	name, endpoint, key, sas := c.Name, c.Endpoint, c.SharedKey.Reveal(), c.SAS.Reveal()
	if !c.ConnectionString.IsZero() {
		p, err := parseConnectionString(c.ConnectionString.Reveal())
		if err != nil {
			return nil, credentials{}, err
		}
		key, sas = p.key, p.sas
		if endpoint == "" {
			endpoint = p.endpoint
		}
		if p.name != "" {
			name = p.name
		}
	}
	if endpoint == "" {
		endpoint = "https://" + c.Name + ".blob.core.windows.net"
	}
	u, err := parseEndpoint(endpoint)
	if err != nil {
		return nil, credentials{}, err
	}
	if c.Token != nil && u.Scheme != "https" {
		return nil, credentials{}, errors.New("an identity needs an https endpoint: its tokens do not travel in the clear")
	}
	out := credentials{token: c.Token, sas: strings.TrimPrefix(sas, "?")}
	if key != "" {
		if out.key, err = service.NewSharedKeyCredential(name, key); err != nil {
			return nil, credentials{}, errors.New("the account key is not base64")
		}
		out.raw = append(out.raw, key)
	}
	if out.sas != "" {
		q, err := url.ParseQuery(out.sas)
		if err != nil || q.Get("sig") == "" {
			return nil, credentials{}, errors.New("the SAS has no signature")
		}
		out.raw = append(out.raw, out.sas, q.Get("sig"), url.QueryEscape(q.Get("sig")))
	}
	return u, out, nil
}

func parseEndpoint(endpoint string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSuffix(endpoint, "/"))
	switch {
	case err != nil:
		return nil, errors.New("the endpoint is no URL") // the URL may hold a secret
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return nil, errors.New("the endpoint is no http or https URL")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("the endpoint has a user, a query or a fragment: credentials have their own settings")
	}
	return u, nil
}

type connectionString struct{ name, endpoint, key, sas string }

func parseConnectionString(text string) (connectionString, error) {
	part := map[string]string{}
	for field := range strings.SplitSeq(text, ";") {
		if field = strings.TrimSpace(field); field == "" {
			continue
		}
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			return connectionString{}, errors.New("the connection string has a part without a value")
		}
		part[strings.ToLower(key)] = value
	}
	c := connectionString{
		name: part["accountname"], endpoint: part["blobendpoint"],
		key: part["accountkey"], sas: part["sharedaccesssignature"],
	}
	if c.endpoint == "" && c.name != "" {
		scheme, suffix := part["defaultendpointsprotocol"], part["endpointsuffix"]
		if scheme == "" {
			scheme = "https"
		}
		if suffix == "" {
			suffix = "core.windows.net"
		}
		c.endpoint = scheme + "://" + c.name + ".blob." + suffix
	}
	switch {
	case c.endpoint == "":
		return c, errors.New("the connection string has no AccountName and no BlobEndpoint")
	case (c.key == "") == (c.sas == ""):
		return c, errors.New("the connection string wants one of AccountKey and SharedAccessSignature")
	case c.key != "" && c.name == "":
		return c, errors.New("the connection string has an AccountKey but no AccountName")
	}
	return c, nil
}
