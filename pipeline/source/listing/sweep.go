package listing

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace/millrace/pipeline"
)

// Pass makes one pass as Run does from time to time, for who keeps the time himself.
// Run may not run.
//
// Errors: those of emit and ctx as they are, and the last fault of the store.
func (s *Source) Pass(ctx context.Context, emit func(context.Context, pipeline.Delivery) error) error {
	faults, err := s.pass(ctx, s.cfg.Now(), emit)
	if err == nil && faults != nil {
		err = fmt.Errorf("sweep: %d faults, the last one: %w", faults.n, faults.last)
	}
	return err
}

// Sweep makes one whole pass, over the folders too, and announces every blob of
// the hours that are not settled, changed or not: what an interrupted pass had
// noted but not delivered comes again. Run must have ended.
//
// Errors: those of emit and ctx as they are; the last fault of the store, since a
// caller that sweeps at the end of its input wants to know that it was not seen
// whole.
func (s *Source) Sweep(ctx context.Context, emit func(context.Context, pipeline.Delivery) error) error {
	select {
	case fresh := <-s.renewed:
		s.take(fresh)
	default:
	}
	s.memory.clear()
	for _, c := range s.containers {
		c.discovered = time.Time{}
	}
	return s.Pass(ctx, emit)
}
