package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/cmd/internal/release"
)

// newVersionCommand makes `millrace version`.
func newVersionCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "version",
		GroupID: groupOperate,
		Short:   "Say which build this is",
		Example: `  millrace version
  millrace version -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch output {
			case "text":
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "millrace "+release.Current().String())
				return err
			case "json":
				return json.NewEncoder(cmd.OutOrStdout()).Encode(release.Current())
			}
			return usageErrorf("-o %q: want text or json", output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}
