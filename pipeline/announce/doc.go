// Package announce turns the messages that a store sends when a blob was written
// into announcements.
//
// In flow message bodies, in the Event Grid schema or as CloudEvents; out flow the
// announcements of configured accounts and containers, and a count for each event
// that was left out. A body is foreign input: it may say anything, so a URL in it
// is compared with the configured endpoints and never dereferenced, and an account
// that is not configured is counted and forgotten. The package holds no state, no
// goroutine and no memory beyond a call.
package announce

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Limits on one message. What is beyond is left out and counted.
const (
	MaxBodyBytes   = 8 << 20  // of a message
	MaxEvents      = 5000     // in a message: the largest batch that Event Grid sends
	MaxDepth       = 32       // of nesting
	MaxMembers     = 256      // of an object
	MaxStringBytes = 64 << 10 // of a text
)

// DefaultContainers are where Azure writes network flow logs.
func DefaultContainers() []string {
	return []string{"insights-logs-flowlogflowevent", "insights-logs-networksecuritygroupflowevent"}
}

// Reason says why an event gave no announcement. The list is closed.
type Reason string

// Reasons.
const (
	ReasonSyntax    Reason = "malformed"       // no JSON, or the rest of the body after a syntax error
	ReasonLimit     Reason = "limit"           // larger or deeper than the limits, duplicate members; ends the body
	ReasonShape     Reason = "shape"           // JSON, but no event: a member is missing or of another type
	ReasonType      Reason = "event_type"      // not about a blob that was created
	ReasonAPI       Reason = "api"             // created by an operation that leaves an empty or unfinished blob
	ReasonBlobType  Reason = "blob_type"       // a page blob
	ReasonURL       Reason = "url"             // not the plain http or https URL of a blob
	ReasonAccount   Reason = "unknown_account" // not below a configured endpoint
	ReasonContainer Reason = "container"       // of a configured account, but not an allowed container
	ReasonPath      Reason = "path"            // a name with dot segments, control characters or the like
	ReasonFilter    Reason = "path_filter"     // not of the configured prefix and suffix
	ReasonDisagree  Reason = "disagree"        // topic, subject and URL do not name the same blob
)

// Reasons lists them all, for metrics.
func Reasons() []Reason {
	return []Reason{
		ReasonSyntax, ReasonLimit, ReasonShape, ReasonType, ReasonAPI, ReasonBlobType, ReasonURL,
		ReasonAccount, ReasonContainer, ReasonPath, ReasonFilter, ReasonDisagree,
	}
}

// Counts tells how many events were left out, by reason. Nil when none was.
type Counts map[Reason]int

func (c *Counts) add(r Reason) {
	if *c == nil {
		*c = Counts{}
	}
	(*c)[r]++
}

// Account is a storage account whose blobs are read.
type Account struct {
	// Name of the account. It is the account of the announcements, and the topic of an
	// event must end with it.
	Name string
	// Endpoint is the URL of the blob service; default https://NAME.blob.core.windows.net.
	// A path of one segment, as emulators have it, belongs to it. The dfs endpoint of
	// the same account is known as well when the host has the label "blob".
	Endpoint string
	// Aliases are more URLs under which events name the same account.
	Aliases []string
	// Containers that are read, exact. At least one.
	Containers []string
	// PathPrefix and PathSuffix, when set, must be around a blob's name in the container.
	PathPrefix, PathSuffix string
}

// Parser knows the accounts. It is safe for concurrent use.
type Parser struct {
	endpoints map[string]*Account // by "scheme://host" or "scheme://host/segment"
}

// New checks the accounts, reporting every fault at once.
func New(accounts []Account) (*Parser, error) {
	p := &Parser{endpoints: map[string]*Account{}}
	var faults []error
	if len(accounts) == 0 {
		faults = append(faults, errors.New("no storage account configured"))
	}
	for _, a := range accounts {
		if err := p.add(a); err != nil {
			faults = append(faults, fmt.Errorf("storage account %q: %w", a.Name, err))
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return p, nil
}

func (p *Parser) add(a Account) error {
	a.Containers = slices.Clone(a.Containers)
	var faults []error
	if a.Name == "" || strings.ContainsAny(a.Name, "/ ") {
		faults = append(faults, errors.New("no usable name"))
	}
	if len(a.Containers) == 0 {
		faults = append(faults, errors.New("no container allowed"))
	}
	for _, c := range a.Containers {
		if c == "" || strings.Contains(c, "/") {
			faults = append(faults, fmt.Errorf("container %q is no name", c))
		}
	}
	if a.Endpoint == "" {
		a.Endpoint = "https://" + a.Name + ".blob.core.windows.net"
	}
	for i, e := range append([]string{a.Endpoint}, a.Aliases...) {
		u, err := endpoint(e)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		faults = append(faults, p.register(u.String(), &a))
		if host, ok := dfsTwin(u.Host); ok && i == 0 {
			u.Host = host
			faults = append(faults, p.register(u.String(), &a))
		}
	}
	return errors.Join(faults...)
}

func (p *Parser) register(endpoint string, a *Account) error {
	if other := p.endpoints[endpoint]; other != nil {
		if other == a {
			return nil
		}
		return fmt.Errorf("endpoint %q is that of account %q too", endpoint, other.Name)
	}
	p.endpoints[endpoint] = a
	return nil
}

func endpoint(text string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimRight(text, "/"))
	switch {
	case err != nil:
		return nil, errors.New("the endpoint is no URL") // its text may hold a secret
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return nil, errors.New("the endpoint is no http or https URL")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("the endpoint has a user, a query or a fragment")
	case strings.Count(u.Path, "/") > 1:
		return nil, errors.New("the endpoint's path has more than one segment")
	}
	u.Host = strings.ToLower(u.Host)
	return u, nil
}

// dfsTwin gives the host of the data lake endpoint beside a blob endpoint.
func dfsTwin(host string) (string, bool) {
	before, after, ok := strings.Cut(host, ".blob.")
	return before + ".dfs." + after, ok
}
