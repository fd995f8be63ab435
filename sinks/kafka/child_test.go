package kafka

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"

	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/sinks/sinktest"
)

// childConfig and childEpoch tell a child of the kill test what to land.
const (
	childConfig = "MILLRACE_TEST_KAFKA_CHILD"
	childEpoch  = "MILLRACE_TEST_KAFKA_EPOCH"
)

// childBatches is how many batches there are to land, each of childRows rows.
const (
	childBatches = 24
	childRows    = 3000
)

func childBatch(seq uint64) pipeline.Piece {
	return sinktest.Make(memory.DefaultAllocator, sinktest.Shape{
		Table: schemas.Flows, Batch: pipeline.NewBatchID(3, 1, seq), Seed: seq, Rows: childRows,
	})
}

// child lands batches as an engine would: it fences, asks which are there, lands the
// others, and says so. It is killed in the midst of it.
func child() {
	if err := landAll(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func landAll() error {
	ctx := context.Background()
	var c Config
	if err := json.Unmarshal([]byte(os.Getenv(childConfig)), &c); err != nil {
		return err
	}
	epoch, err := strconv.ParseUint(os.Getenv(childEpoch), 10, 64)
	if err != nil {
		return err
	}
	s, err := New(c, sinktest.Tables(), Deps{})
	if err != nil {
		return err
	}
	if err := s.Fence(ctx, 3, 1, epoch); err != nil {
		return err
	}
	for seq := uint64(1); seq <= childBatches; seq++ {
		id := pipeline.NewBatchID(3, 1, seq)
		planned, err := s.Plan(id, []pipeline.Piece{childBatch(seq)}, nil)
		if err != nil {
			return err
		}
		found, err := s.Probe(ctx, id, []pipeline.PieceRef{planned[0].PieceRef})
		if err != nil {
			return err
		}
		if found[0] != 0 {
			continue
		}
		fmt.Println("landing", seq)
		if err := s.Land(ctx, id, epoch, planned[0]); err != nil {
			return err
		}
	}
	fmt.Println("all")
	return s.Close()
}
