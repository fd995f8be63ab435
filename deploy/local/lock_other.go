//go:build !linux && !darwin

package local

import (
	"context"
	"errors"
	"fmt"
	"runtime"
)

func lock(context.Context, string, func()) (func(), error) {
	return nil, fmt.Errorf("install parts on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

func freeBytes(string) (uint64, error) { return 0, errors.ErrUnsupported }
