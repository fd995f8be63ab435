package kafka

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/sinktest"
)

// childOrder tells a child of the kill test, as JSON, what to do.
const childOrder = "MILLRACE_TEST_KAFKA_CHILD"

// order is where a child stops in the landing of childBatch: at the commit.
type order struct {
	Config Config
	Sent   bool // stop when the commit is sent, not before
}

// childStopped is what a child prints when it has stopped.
const childStopped = "stopped"

// isCommit says whether a request ends a transaction (EndTxn).
func isCommit(request []byte) bool { return binary.BigEndian.Uint16(request[4:]) == 26 }

var childID = pipeline.NewBatchID(3, 1, 1)

func childBatch() pipeline.Piece {
	return sinktest.Make(allocator, sinktest.Shape{Table: schemas.Flows, Batch: childID, Seed: 1, Rows: 2000})
}

// child begins to land the batch and waits to be killed.
func child() {
	fmt.Fprintln(os.Stderr, landHalf())
	os.Exit(1)
}

func landHalf() error {
	ctx := context.Background()
	var o order
	if err := json.Unmarshal([]byte(os.Getenv(childOrder)), &o); err != nil {
		return err
	}
	s, err := New(o.Config, sinktest.Tables(), Deps{})
	if err != nil {
		return err
	}
	var armed atomic.Bool
	s.options = append(s.options, kgo.Dialer(func(ctx context.Context, network, host string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, host)
		return stopper{Conn: c, order: o, armed: &armed}, err
	}))
	if err := s.Fence(ctx, childID.Ledger(), childID.Shard(), 1); err != nil {
		return err
	}
	planned, err := s.Plan(childID, []pipeline.Piece{childBatch()}, nil)
	if err != nil {
		return err
	}
	armed.Store(true)
	if err := s.Land(ctx, childID, 1, planned[0]); err != nil {
		return err
	}
	return errors.New("landed without a stop")
}

// stopper is a connection that stops at the commit.
type stopper struct {
	net.Conn
	order order
	armed *atomic.Bool
}

// Write implements net.Conn. The client writes a request at a time.
func (s stopper) Write(request []byte) (n int, err error) {
	here := s.armed.Load() && isCommit(request)
	if !here || s.order.Sent {
		n, err = s.Conn.Write(request)
	}
	if here {
		fmt.Println(childStopped)
		_, _ = io.Copy(io.Discard, os.Stdin) // ends when the parent does
		os.Exit(1)
	}
	return n, err
}
