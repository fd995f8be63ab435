package main

import "github.com/spf13/cobra"

// commands lists the subcommands in the order of design: one line each.
func commands() []*cobra.Command {
	return []*cobra.Command{
		newDemoCommand(),
		newRunCommand(),
		newBackfillCommand(),
		newReplayCommand(),
		newDecodeCommand(),
		newQuarantineCommand(),
		newEvidenceCommand(),
		newVerifyCommand(),
		newCheckCommand(),
		newSchemaCommand(),
		newLedgerCommand(),
		newForgetCommand(),
		newDemoEstateCommand(),
		newEmulatorCommand(),
		newSimulateCommand(),
		newPartsCommand(),
		newVersionCommand(),
	}
}
