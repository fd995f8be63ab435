package main

import (
	"github.com/spf13/cobra"

	"github.com/millrace/millrace/deploy"
)

// newSchemaCommand makes `millrace schema`.
func newSchemaCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "schema",
		GroupID: groupOperate,
		Short:   "Print schemas, such as that of the configuration for editors",
		Example: "  millrace schema config > millrace.schema.json",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSchemaConfigCommand())
	return cmd
}

func newSchemaConfigCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "config",
		Short: "Print the JSON Schema of the configuration",
		Long: `Prints the JSON Schema of the configuration file. An editor with a YAML language
server completes and checks a file whose first line is

  # yaml-language-server: $schema=millrace.schema.json`,
		Example: "  millrace schema config > millrace.schema.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(deploy.Schema)
			return err
		},
	}
}
