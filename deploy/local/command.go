package local

import (
	"context"
	"fmt"
	"io"
	"strings"
)

// Verbs of Command.
const (
	VerbCheck   = "check"
	VerbInstall = "install"
	VerbEnv     = "env"
)

// Command runs one verb of `millrace parts`: check prints the preflight,
// install also installs what is missing, env prints `export NAME=value` lines
// for a shell. Results go to out, progress to status.
//
// Errors: faults of the preflight; parts that cannot be installed.
func Command(ctx context.Context, verb string, need Need, out, status io.Writer) error {
	cache, err := DefaultCache()
	if err != nil {
		return err
	}
	switch verb {
	case VerbCheck:
		report := Preflight(ctx, cache, need)
		report.Write(out)
		return faulty(report)
	case VerbInstall:
		return Ensure(ctx, cache, need.parts(), NewPrinter(status))
	case VerbEnv:
		for _, p := range need.parts() {
			fmt.Fprintf(out, "export %s=%s\n", p.Env, shellQuote(cache.Path(p)))
		}
		return nil
	default:
		return fmt.Errorf("unknown verb %q: want %s, %s or %s", verb, VerbCheck, VerbInstall, VerbEnv)
	}
}

func faulty(r Report) error {
	if n := len(r.Faults()); n > 0 {
		return fmt.Errorf("%d of %d checks found a fault: mend them and try again", n, len(r.Checks))
	}
	return nil
}

// shellQuote makes one word of s for a POSIX shell.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
