// Command millrace turns cloud flow logs into rows, windows and findings.
//
// Each subcommand lives in its own file as a function new<Name>Command that
// returns a *cobra.Command; this file only groups them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/cmd/internal/release"
)

// Exit codes, the same for every subcommand: 0 good, 1 failed, 2 usage,
// 3 a needed part is missing on this machine.
const (
	exitFailed  = 1
	exitUsage   = 2
	exitMissing = 3
)

// exitError carries an exit code from a subcommand to main. A nil err means
// that the subcommand has already said what was wrong.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usageErrorf marks an error as the caller's: main prints it and exits with 2.
func usageErrorf(format string, args ...any) error {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// Groups of --help.
const (
	groupRun         = "run"
	groupInvestigate = "investigate"
	groupOperate     = "operate"
	groupDevelop     = "develop"
)

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "millrace",
		Short:         "Turn cloud flow logs into rows, windows and findings, exactly once",
		Version:       release.Current().String(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Run:"},
		&cobra.Group{ID: groupInvestigate, Title: "Investigate:"},
		&cobra.Group{ID: groupOperate, Title: "Operate:"},
		&cobra.Group{ID: groupDevelop, Title: "Develop:"},
	)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageErrorf("%w", err) })
	root.AddCommand(commands()...)
	root.SuggestionsMinimumDistance = 2 // letters
	root.Args = unknownCommand
	root.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() } // only what runs has its arguments checked
	wrapArgs(root)
	return root
}

// unknownCommand refuses words that name no subcommand, with those that look like
// them.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := "see millrace --help"
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return fmt.Errorf("unknown command %q: %s", args[0], hint)
}

// wrapArgs makes wrong arguments of every command the caller's fault.
func wrapArgs(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageErrorf("%w", err)
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		wrapArgs(sub)
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	root := newRootCommand()
	err := root.ExecuteContext(ctx)
	if err == nil {
		return
	}
	code := exitFailed
	var e *exitError
	if errors.As(err, &e) {
		code, err = e.code, e.err
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "millrace:", printableLines(err.Error()))
	}
	stop()
	os.Exit(code) //nolint:gocritic // stop was called above.
}
