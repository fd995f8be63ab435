package config

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Account is one storage account whose blobs may be read.
type Account struct {
	// Name of the account, as in https://NAME.blob.core.windows.net. Required.
	Name string `yaml:"name"`
	// Endpoint is the account's blob endpoint, without user, key or query. It decides the
	// cloud, too: https://NAME.blob.core.chinacloudapi.cn is in China. Required.
	Endpoint string `yaml:"endpoint"`
	// Aliases are further blob endpoints under which notifications name the account.
	// Default none.
	Aliases []string `yaml:"aliases" reload:"live"`
	// Containers that may be read, by exact name. Required, at least one. A running
	// pipeline takes further ones over, and none away.
	Containers []string `yaml:"containers" reload:"live"`
	// Key names the account key. One of key, sas, connection_string and identity.
	Key Reference `yaml:"key" reload:"live"`
	// SAS names a shared access signature with the rights read and list. One of key, sas,
	// connection_string and identity.
	SAS Reference `yaml:"sas" reload:"live"`
	// ConnectionString names the account's connection string. One of key, sas,
	// connection_string and identity.
	ConnectionString Reference `yaml:"connection_string" reload:"live"`
	// Identity reads with an identity of Entra ID, which needs the role Storage Blob Data
	// Reader on the account or its containers. Default: the pipeline's identity, unless
	// there is a key, a SAS or a connection string.
	Identity *Identity `yaml:"identity" reload:"live"`
	// PrivateNetwork allows the endpoint's name to resolve to a private address, as it
	// does behind Azure Private Link. Default false.
	PrivateNetwork bool `yaml:"private_network" reload:"live"`
}

// EventHub is one hub that announces blobs.
type EventHub struct {
	// Namespace is the full name of the Event Hubs namespace, such as
	// NAME.servicebus.windows.net. It decides the cloud, too. Required with an identity;
	// a connection string names it itself.
	Namespace string `yaml:"namespace"`
	// Hub is the name of the event hub. Required.
	Hub string `yaml:"hub"`
	// ConsumerGroup is the group that reads; nobody else may read in it. Default
	// $Default.
	ConsumerGroup string `yaml:"consumer_group"`
	// ConnectionString names the connection string of the namespace or of the hub, with
	// the right Listen. One of connection_string and identity.
	ConnectionString Reference `yaml:"connection_string"`
	// Identity reads with an identity of Entra ID, which needs the role Azure Event Hubs
	// Data Receiver on the hub. Default: the pipeline's identity, unless there is a
	// connection string.
	Identity *Identity `yaml:"identity"`
	// Transport is amqp, which needs port 5671 to be open to the outside, or websocket,
	// which goes through port 443 and through the proxy of HTTPS_PROXY. Default amqp.
	Transport string `yaml:"transport" enum:"amqp,websocket"`
}

// Kinds of identities.
const (
	IdentityDefault  = "default"
	IdentityWorkload = "workload"
	IdentityManaged  = "managed"
	IdentityCLI      = "cli"
	IdentityEnv      = "env"
)

// Transports of Event Hubs.
const (
	TransportAMQP      = "amqp"
	TransportWebSocket = "websocket"
)

// Identity is an identity of Entra ID. What is secret about it never stands in the
// file: it comes from the machine, from AZURE_... variables or from a login.
type Identity struct {
	// Kind says where tokens come from: default tries env, workload, managed and cli in
	// turn; workload is a Kubernetes service account or another federated token; managed
	// is the identity of the Azure machine; cli is the login of the az command; env is a
	// client of AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET or
	// AZURE_CLIENT_CERTIFICATE_PATH. Name the kind in production: the chain takes longer to
	// say what is wrong. Default default.
	Kind string `yaml:"kind" enum:"default,workload,managed,cli,env"`
	// ClientID is the application of a workload, or the user-assigned identity of a
	// machine. Default: AZURE_CLIENT_ID for workload, the system-assigned identity for
	// managed. Not for the other kinds.
	ClientID string `yaml:"client_id"`
	// TenantID is the tenant that gives tokens. Default: AZURE_TENANT_ID, or that of the
	// login. Not for managed and env.
	TenantID string `yaml:"tenant_id"`
	// TokenFile holds the federated token of a workload; it is read again when it
	// changes. Default: AZURE_FEDERATED_TOKEN_FILE. For workload only.
	TokenFile string `yaml:"token_file"`
	// Authority is the https address that gives tokens. Default: that of the cloud which
	// the endpoint or the namespace belongs to, such as https://login.microsoftonline.com,
	// unless AZURE_AUTHORITY_HOST is set.
	Authority string `yaml:"authority"`
}

// fillAzure gives every account and hub what it takes from the pipeline.
func (c *Config) fillAzure() {
	for _, id := range append(c.identities(), c.Identity) {
		if id != nil && id.Kind == "" {
			id.Kind = IdentityDefault
		}
	}
	for i := range c.Accounts {
		a := &c.Accounts[i]
		if a.Identity == nil && !a.Key.Set() && !a.SAS.Set() && !a.ConnectionString.Set() {
			a.Identity = c.Identity
		}
	}
	if l := c.Ledger.Azure; l != nil && l.Identity == nil && !l.Key.Set() && !l.SAS.Set() {
		l.Identity = c.Identity
	}
	c.defaultKafka()
	for i := range c.EventHubs {
		h := &c.EventHubs[i]
		if h.Identity == nil && !h.ConnectionString.Set() {
			h.Identity = c.Identity
		}
		if h.ConsumerGroup == "" {
			h.ConsumerGroup = "$Default"
		}
		if h.Transport == "" {
			h.Transport = TransportAMQP
		}
	}
}

// identities gives those of accounts, hubs and the ledger.
func (c *Config) identities() []*Identity {
	var all []*Identity
	for _, a := range c.Accounts {
		all = append(all, a.Identity)
	}
	for _, h := range c.EventHubs {
		all = append(all, h.Identity)
	}
	for _, a := range c.LedgerAccounts() {
		all = append(all, a.Identity)
	}
	return all
}

// checker notes a fault at a key unless ok.
type checker func(ok bool, key, format string, args ...any)

func (c Config) validateAccounts(check checker) {
	check(len(c.Accounts) > 0, "accounts", "missing: name at least one storage account, or directories")
	seen := map[string]int{}
	for i, a := range c.Accounts {
		key := fmt.Sprintf("accounts[%d]", i)
		check(a.Name != "", key+".name", "missing")
		first, twice := seen[a.Name]
		check(!twice || a.Name == "", key+".name", "%q is already the name of accounts[%d]", a.Name, first)
		seen[a.Name] = i
		check(isURL(a.Endpoint), key+".endpoint", "no plain http(s) address: give the blob endpoint without user or key, such as https://NAME.blob.core.windows.net")
		for j, alias := range a.Aliases {
			check(isURL(alias), fmt.Sprintf("%s.aliases[%d]", key, j), "no plain http(s) address")
		}
		check(len(a.Containers) > 0, key+".containers", "missing: name the containers that may be read")
		for j, name := range a.Containers {
			check(validContainer.MatchString(name), fmt.Sprintf("%s.containers[%d]", key, j), "%q: want 3 to 63 lower-case letters, digits and dashes, such as insights-logs-flowlogflowevent", name)
			check(slices.Index(a.Containers, name) == j, fmt.Sprintf("%s.containers[%d]", key, j), "%q is in the list twice", name)
		}
		given := credentialCount(a.Key.Set(), a.SAS.Set(), a.ConnectionString.Set(), a.Identity != nil)
		check(given == 1, key, "want exactly one of key, sas, connection_string and identity, such as identity: {kind: default} or key: {env: NAME}")
		if a.Identity != nil && isURL(a.Endpoint) {
			check(strings.HasPrefix(a.Endpoint, "https:"), key+".endpoint", "an identity needs https: its tokens do not travel in the clear")
		}
		if a.Identity != c.Identity {
			a.Identity.validate(key+".identity", check)
		}
	}
}

var (
	validContainer = regexp.MustCompile(`^(\$root|\$web|\$logs|[a-z0-9-]{3,63})$`)
	validNamespace = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:\d+)?$`)
)

func credentialCount(given ...bool) int {
	n := 0
	for _, g := range given {
		if g {
			n++
		}
	}
	return n
}

func (c Config) validateEventHubs(check checker) {
	for i, h := range c.EventHubs {
		key := fmt.Sprintf("eventhubs[%d]", i)
		check(h.Hub != "", key+".hub", "missing")
		check(h.ConnectionString.Set() != (h.Identity != nil), key, "want exactly one of connection_string as {env: NAME} or {file: PATH}, and identity with namespace")
		if h.Identity != nil {
			check(validNamespace.MatchString(h.Namespace) && strings.Contains(h.Namespace, "."), key+".namespace", "%q: want the full name of the namespace, such as NAME.servicebus.windows.net", h.Namespace)
		} else {
			check(h.Namespace == "", key+".namespace", "a connection string names the namespace itself: leave this out")
		}
		if h.Identity != c.Identity {
			h.Identity.validate(key+".identity", check)
		}
	}
}

// validate checks an identity; nil is none.
func (id *Identity) validate(key string, check checker) {
	if id == nil {
		return
	}
	only := func(value, name string, kinds ...string) {
		check(value == "" || slices.Contains(kinds, id.Kind), key+"."+name, "not for kind %s, only for %s", id.Kind, quoteList(kinds))
	}
	only(id.ClientID, "client_id", IdentityWorkload, IdentityManaged)
	only(id.TenantID, "tenant_id", IdentityDefault, IdentityWorkload, IdentityCLI)
	only(id.TokenFile, "token_file", IdentityWorkload)
	only(id.Authority, "authority", IdentityDefault, IdentityWorkload, IdentityEnv)
	if id.Authority != "" {
		u, err := url.Parse(id.Authority)
		check(err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil && u.RawQuery == "", key+".authority", "no plain https address: want the authority's host, such as https://login.microsoftonline.com")
	}
}
