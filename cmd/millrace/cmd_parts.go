package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/deploy/local"
)

// newPartsCommand makes `millrace parts`, which checks and installs what a
// demo and the tests run against.
func newPartsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "parts",
		GroupID: groupDevelop,
		Short:   "Check and install the local ClickHouse and Azurite",
		Long: `Check and install the real servers a demo and the tests run against: the
embedded ClickHouse and Azurite, and for the tests the official clients of other
languages. Every part is pinned by version and checksum and is kept in the cache
folder ($MILLRACE_CACHE; .cache of a source tree by default).

To use a part of your own, set its variable (env prints them all, as
MILLRACE_LIBCHDB and MILLRACE_AZURITE) to its path.`,
	}
	cmd.AddCommand(
		newPartsVerb(local.VerbCheck, "Say within a second what this machine has and lacks",
			"  millrace parts check --for demo"),
		newPartsVerb(local.VerbInstall, "Download and verify what is missing",
			"  millrace parts install --for test"),
		newPartsVerb(local.VerbEnv, "Print where the parts are, as lines for a shell",
			"  eval \"$(millrace parts env --for test)\""),
	)
	return cmd
}

func newPartsVerb(verb, short, example string) *cobra.Command {
	var purpose string
	var noClickHouse bool
	cmd := &cobra.Command{
		Use:     verb,
		Short:   short,
		Example: example,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := local.ParsePurpose(purpose)
			if err != nil {
				return usageErrorf("--for: %w", err)
			}
			need := local.Need{Purpose: p, NoClickHouse: noClickHouse}
			return local.Command(cmd.Context(), verb, need, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&purpose, "for", string(local.ForDemo), fmt.Sprintf("what the parts are for: %s or %s", local.ForDemo, local.ForTest))
	cmd.Flags().BoolVar(&noClickHouse, "no-clickhouse", false, "leave the embedded ClickHouse out, for a server of your own")
	return cmd
}
