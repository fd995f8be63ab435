//go:build (linux || darwin) && (amd64 || arm64)

package main

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
)

// library is libchdb.so, loaded into this process.
type library struct {
	queryCmdline             func(argc int32, argv unsafe.Pointer) unsafe.Pointer
	resultError              func(result unsafe.Pointer) string
	setSignalHandlersEnabled func(int32)
}

// openLibrary loads the shared library at path and binds the functions this
// program uses. A library without them (before 26.7) is refused here and
// not in the middle of a query.
func openLibrary(path string) (*library, error) {
	if err := setTimeZone("UTC"); err != nil {
		return nil, err
	}
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return nil, fmt.Errorf("load library %q: %w", path, err)
	}
	lib := &library{}
	for _, f := range []struct {
		name string
		bind any
	}{
		{"chdb_query_cmdline", &lib.queryCmdline},
		{"chdb_result_error", &lib.resultError},
		{"chdb_set_signal_handlers_enabled", &lib.setSignalHandlersEnabled},
	} {
		symbol, err := purego.Dlsym(handle, f.name)
		if err != nil {
			return nil, fmt.Errorf("load library %q: it has no function %q: %w", path, f.name, err)
		}
		purego.RegisterFunc(f.bind, symbol)
	}
	return lib, nil
}

// setTimeZone sets the server's time zone, which ClickHouse's local mode takes
// from the C environment when it is loaded, whatever its configuration says.
// os.Setenv does not reach that environment in a program without cgo.
func setTimeZone(zone string) error {
	symbol, err := purego.Dlsym(purego.RTLD_DEFAULT, "setenv")
	if err != nil {
		return fmt.Errorf("set time zone: %w", err)
	}
	var setenv func(name, value string, overwrite int32) int32
	purego.RegisterFunc(&setenv, symbol)
	if setenv("TZ", zone, 1) != 0 {
		return fmt.Errorf("set time zone: setenv refused %q", zone)
	}
	return nil
}

// run calls ClickHouse's own main function ("clickhouse local") with args and
// returns when that function does. It blocks a whole thread for that long.
func (l *library) run(args []string) error {
	// Signals stay with the Go runtime: ClickHouse would take SIGTSTP and the
	// fault signals, and a crash would then end the process without a word.
	l.setSignalHandlersEnabled(0)
	args = append([]string{"clickhouse"}, args...)
	argv := make([]*byte, len(args)+1) // C wants a null pointer at the end.
	for i, a := range args {
		argv[i] = &append([]byte(a), 0)[0]
	}
	result := l.queryCmdline(int32(len(args)), unsafe.Pointer(&argv[0]))
	runtime.KeepAlive(argv)
	if result == nil {
		return nil
	}
	if text := l.resultError(result); text != "" {
		return errors.New(text)
	}
	return nil
}
