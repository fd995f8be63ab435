package pipeline

import (
	"context"
	"time"
)

// Wait lets a time pass before something is tried again.
//
// Errors: ctx's, when it ends first.
func Wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
