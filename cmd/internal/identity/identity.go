// Package identity gives tokens of Entra ID for storage accounts and Event Hubs, in
// the cloud that their endpoint belongs to.
//
// Tokens go from the authority, or from the machine's own endpoint, to whoever
// called; the package keeps none and logs none. Its HTTP client follows no
// redirect, so that a client's secret stays with the configured authority.
package identity

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/millrace/millrace/cmd/internal/config"
)

// clouds by the end of the names of their services.
var clouds = []struct{ suffix, authority string }{
	{".chinacloudapi.cn", cloud.AzureChina.ActiveDirectoryAuthorityHost},
	{".usgovcloudapi.net", cloud.AzureGovernment.ActiveDirectoryAuthorityHost},
	{".windows.net", cloud.AzurePublic.ActiveDirectoryAuthorityHost},
}

// Authority gives the address that gives tokens for a service's host: what the
// configuration says, else AZURE_AUTHORITY_HOST, else that of the host's cloud.
//
// The audience of a token is the same in every cloud, as the SDKs of both services
// ask for it: https://storage.azure.com/ and https://eventhubs.azure.net/.
//
// Source: the constants of azcore/cloud for the authorities, the code of azblob
// v1.8.3 and azeventhubs v2.0.2 for the audiences. None was tried against a
// cloud of Azure.
func Authority(id config.Identity, host string) string {
	if id.Authority != "" {
		return id.Authority
	}
	if env := os.Getenv("AZURE_AUTHORITY_HOST"); env != "" {
		return env
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, c := range clouds {
		if strings.HasSuffix(host, c.suffix) {
			return c.authority
		}
	}
	return cloud.AzurePublic.ActiveDirectoryAuthorityHost
}

// New gives the credential of an identity for a service's host. It asks nobody yet.
//
// Errors: what the identity needs of the environment and is not there.
func New(id config.Identity, host string) (azcore.TokenCredential, error) {
	if err := complete(id); err != nil {
		return nil, fmt.Errorf("identity of kind %s: %w", id.Kind, err)
	}
	authority := Authority(id, host)
	options := azcore.ClientOptions{Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: authority}, Transport: client()}
	private := !known(authority)
	var cred azcore.TokenCredential
	var err error
	switch id.Kind {
	case config.IdentityWorkload:
		cred, err = azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
			ClientOptions: options, ClientID: id.ClientID, TenantID: id.TenantID, TokenFilePath: id.TokenFile, DisableInstanceDiscovery: private,
		})
	case config.IdentityManaged:
		o := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: options}
		if id.ClientID != "" {
			o.ID = azidentity.ClientID(id.ClientID)
		}
		cred, err = azidentity.NewManagedIdentityCredential(o)
	case config.IdentityCLI:
		cred, err = azidentity.NewAzureCLICredential(&azidentity.AzureCLICredentialOptions{TenantID: id.TenantID})
	case config.IdentityEnv:
		cred, err = azidentity.NewEnvironmentCredential(&azidentity.EnvironmentCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: private})
	default:
		cred, err = azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
			ClientOptions: options, TenantID: id.TenantID, DisableInstanceDiscovery: private,
		})
	}
	if err != nil {
		return nil, fmt.Errorf("identity of kind %s: %s", id.Kind, brief(err))
	}
	return credential{cred, id.Kind, authority}, nil
}

// complete says what a workload's identity lacks: its keys can come from the
// environment, which the webhook of Kubernetes fills.
func complete(id config.Identity) error {
	if id.Kind != config.IdentityWorkload {
		return nil
	}
	var missing []string
	for _, k := range []struct{ value, key, variable string }{
		{id.TenantID, "tenant_id", "AZURE_TENANT_ID"},
		{id.ClientID, "client_id", "AZURE_CLIENT_ID"},
		{id.TokenFile, "token_file", "AZURE_FEDERATED_TOKEN_FILE"},
	} {
		if k.value == "" && os.Getenv(k.variable) == "" {
			missing = append(missing, k.key+" or "+k.variable)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("nothing names %s; does the pod have the label azure.workload.identity/use and its service account the annotation azure.workload.identity/client-id?", strings.Join(missing, ", "))
	}
	return nil
}

// known says whether the SDK vouches for the authority. For others, such as that of
// a private cloud, Microsoft is not asked whether it exists.
func known(authority string) bool {
	for _, c := range clouds {
		if strings.TrimSuffix(authority, "/") == strings.TrimSuffix(c.authority, "/") {
			return true
		}
	}
	return false
}

// Limits of a request for a token.
const (
	requestTimeout   = 30 * time.Second
	handshakeTimeout = 10 * time.Second
)

// client speaks with authorities, through the environment's proxy, and with the
// machine's own endpoint, which no proxy reaches.
func client() *http.Client {
	return &http.Client{
		Timeout:       requestTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy: func(r *http.Request) (*url.URL, error) {
				if a, err := netip.ParseAddr(r.URL.Hostname()); err == nil && (a.IsLinkLocalUnicast() || a.IsLoopback()) {
					return nil, nil
				}
				return http.ProxyFromEnvironment(r)
			},
			TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: handshakeTimeout,
			IdleConnTimeout:     time.Minute,
			ForceAttemptHTTP2:   true,
		},
	}
}

// credential makes the SDK's errors short: they hold whole answers.
type credential struct {
	azcore.TokenCredential
	kind, authority string
}

// GetToken asks for a token.
//
// Errors: the context's own; else one line that says who refused what.
func (c credential) GetToken(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, err := c.TokenCredential.GetToken(ctx, options)
	if err != nil && ctx.Err() == nil {
		return token, fmt.Errorf("identity of kind %s: no token from %s: %s", c.kind, strings.TrimSuffix(c.authority, "/"), brief(err))
	}
	return token, err
}

var (
	rule   = regexp.MustCompile(`-{8,}`)
	advice = regexp.MustCompile(`\.? ?To troubleshoot, visit \S+`)
)

// detailLimit bounds an error's text, in bytes.
const detailLimit = 600

// brief takes what helps out of an error of the SDK: the service's own description
// if there is one.
func brief(err error) string {
	text := err.Error()
	var failed *azidentity.AuthenticationFailedError
	if errors.As(err, &failed) {
		if d := description(text); d != "" {
			return d
		}
	}
	text = advice.ReplaceAllString(rule.ReplaceAllString(text, " "), "")
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > detailLimit {
		text = strings.ToValidUTF8(text[:detailLimit], "") + "…"
	}
	return text
}

// description finds the OAuth error in the answer that the SDK's text holds.
func description(text string) string {
	for at := strings.IndexByte(text, '{'); at >= 0; {
		var answer struct {
			Error       string `json:"error"`
			Description string `json:"error_description"`
		}
		if json.NewDecoder(strings.NewReader(text[at:])).Decode(&answer) == nil && answer.Error != "" {
			first, _, _ := strings.Cut(answer.Description, "\r\n")
			first, _, _ = strings.Cut(first, "\n")
			return strings.TrimSpace(answer.Error + ": " + strings.TrimPrefix(first, answer.Error+": "))
		}
		next := strings.IndexByte(text[at+1:], '{')
		if next < 0 {
			break
		}
		at += 1 + next
	}
	return ""
}
