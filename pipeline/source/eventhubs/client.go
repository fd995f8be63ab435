package eventhubs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/go-amqp"
)

// closeTime bounds the good-bye to the service.
const closeTime = 5 * time.Second

// client wraps the two clients of the SDK: one receives, the other asks for
// properties. A ConsumerClient can do both, but leaves a goroutine behind when it
// was asked for properties and is closed (azeventhubs v2.0.2); a ProducerClient,
// which never opens a link to send, does not.
type client struct {
	receive *azeventhubs.ConsumerClient
	ask     *azeventhubs.ProducerClient
}

// newClient connects nothing yet.
func newClient(cfg Config, hub string) (*client, error) {
	// The SDK's own retries are off for receiving: a position must be checked against
	// the partition before a link is made anew, and one back-off is enough. A question
	// is asked a second time, since the first one finds out that a link is broken.
	once, twice := azeventhubs.RetryOptions{MaxRetries: -1}, azeventhubs.RetryOptions{MaxRetries: 1, RetryDelay: 50 * time.Millisecond}
	receiving := &azeventhubs.ConsumerClientOptions{RetryOptions: once, TLSConfig: tlsConfig()}
	asking := &azeventhubs.ProducerClientOptions{RetryOptions: twice, TLSConfig: tlsConfig()}
	if cfg.WebSocket {
		receiving.NewWebSocketConn, asking.NewWebSocketConn = dialWebSocket, dialWebSocket
	}
	if cfg.Credential != nil {
		namespace := cfg.Namespace
		if host, _, err := net.SplitHostPort(namespace); err == nil && !cfg.WebSocket {
			// The SDK compares the certificate with the name as it stands.
			receiving.CustomEndpoint, asking.CustomEndpoint, namespace = namespace, namespace, host
		}
		receive, err := azeventhubs.NewConsumerClient(namespace, hub, cfg.ConsumerGroup, cfg.Credential, receiving)
		if err != nil {
			return nil, fmt.Errorf("make the client: %w", err)
		}
		ask, err := azeventhubs.NewProducerClient(namespace, hub, cfg.Credential, asking)
		if err != nil {
			return nil, fmt.Errorf("make the client: %w", err)
		}
		return &client{receive, ask}, nil
	}
	text, name := cfg.ConnectionString.Reveal(), hub
	if p, err := azeventhubs.ParseConnectionString(text); err == nil && p.EntityPath != nil && *p.EntityPath != "" {
		name = "" // the SDK wants the name in one place only
	}
	receive, err := azeventhubs.NewConsumerClientFromConnectionString(text, name, cfg.ConsumerGroup, receiving)
	if err != nil {
		return nil, errors.New("the client refuses the connection string")
	}
	ask, err := azeventhubs.NewProducerClientFromConnectionString(text, name, asking)
	if err != nil {
		return nil, errors.New("the client refuses the connection string")
	}
	return &client{receive, ask}, nil
}

func (c *client) close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	_ = c.ask.Close(ctx) // there is nobody to tell: the connections end either way
	_ = c.receive.Close(ctx)
}

func (c *client) hub(ctx context.Context) (azeventhubs.EventHubProperties, error) {
	return answered(ctx, func() (azeventhubs.EventHubProperties, error) {
		return c.ask.GetEventHubProperties(ctx, nil)
	})
}

func (c *client) partition(ctx context.Context, id string) (azeventhubs.PartitionProperties, error) {
	return answered(ctx, func() (azeventhubs.PartitionProperties, error) {
		return c.ask.GetPartitionProperties(ctx, id, nil)
	})
}

// answered stops waiting when ctx ends: the SDK waits for the answer about a
// partition without looking at its context. Closing the client ends the call.
func answered[T any](ctx context.Context, call func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		v, err := call()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// open makes a receiver that begins behind the sequence number, or at the earliest
// message when there is none.
func (c *client) open(cfg Config, id string, after *int64) (*azeventhubs.PartitionClient, error) {
	position := azeventhubs.StartPosition{SequenceNumber: after}
	if after == nil {
		earliest := true
		position = azeventhubs.StartPosition{Earliest: &earliest}
	}
	return c.receive.NewPartitionClient(id, &azeventhubs.PartitionClientOptions{
		StartPosition: position, OwnerLevel: cfg.OwnerLevel, Prefetch: int32(cfg.Prefetch),
	})
}

// trouble sorts errors by what the source does about them.
type trouble int

const (
	troublePassing trouble = iota // wait and try again
	troubleStolen                 // another reader has the partition
	troubleRefused                // the key, the hub or the group is wrong
)

func classify(err error) trouble {
	var e *azeventhubs.Error
	if errors.As(err, &e) {
		switch e.Code {
		case azeventhubs.ErrorCodeOwnershipLost:
			return troubleStolen
		case azeventhubs.ErrorCodeUnauthorizedAccess:
			return troubleRefused
		case azeventhubs.ErrorCodeConnectionLost: // may hide a condition
		}
	}
	var rpc interface{ RPCCode() int }
	if errors.As(err, &rpc) && (rpc.RPCCode() == 401 || rpc.RPCCode() == 404) {
		return troubleRefused
	}
	switch condition(err) {
	case "amqp:link:stolen":
		return troubleStolen
	case string(amqp.ErrCondUnauthorizedAccess), string(amqp.ErrCondNotFound):
		return troubleRefused
	}
	return troublePassing
}

// condition gives the AMQP condition of an error. The SDK hides it from errors.As
// in some places, but always prints it.
func condition(err error) string {
	var e *amqp.Error
	if errors.As(err, &e) {
		return string(e.Condition)
	}
	_, rest, ok := strings.Cut(fmt.Sprint(err), "Condition: ")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, ",")
	return name
}
