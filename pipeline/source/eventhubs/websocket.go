package eventhubs

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/coder/websocket"
)

const handshakeTimeout = 30 * time.Second

func tlsConfig() *tls.Config { return &tls.Config{MinVersion: tls.VersionTLS12} }

// dialWebSocket opens AMQP over a websocket, which the service offers on port 443.
// The connection goes to the namespace's host, or to the proxy of the environment;
// a redirect is refused, since a token follows.
//
// Source: azeventhubs v2.0.2, which gives the address
// (wss://NAMESPACE/$servicebus/websocket) and whose example names the subprotocol.
func dialWebSocket(ctx context.Context, args azeventhubs.WebSocketConnParams) (net.Conn, error) {
	client := &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: tlsConfig(), TLSHandshakeTimeout: handshakeTimeout,
			IdleConnTimeout: handshakeTimeout,
		},
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	//nolint:bodyclose // the connection owns the body, and of a refusal the library closes it
	conn, resp, err := websocket.Dial(ctx, args.Host, &websocket.DialOptions{HTTPClient: client, Subprotocols: []string{"amqp"}})
	if err != nil {
		if resp != nil {
			return nil, fmt.Errorf("open a websocket to the namespace: status %d: %w", resp.StatusCode, err)
		}
		return nil, fmt.Errorf("open a websocket to the namespace: %w", err)
	}
	conn.SetReadLimit(-1) // frames are bounded by AMQP
	return websocket.NetConn(context.Background(), conn, websocket.MessageBinary), nil
}
