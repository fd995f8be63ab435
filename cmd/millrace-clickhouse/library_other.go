//go:build !((linux || darwin) && (amd64 || arm64))

package main

import (
	"errors"
	"fmt"
	"runtime"
)

type library struct{}

func openLibrary(string) (*library, error) {
	return nil, fmt.Errorf("the embedded ClickHouse does not exist for %s/%s: use --clickhouse URL with a server of your own", runtime.GOOS, runtime.GOARCH)
}

func (*library) run([]string) error { return errors.ErrUnsupported }
