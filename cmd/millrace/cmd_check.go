package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/cmd/internal/check"
)

type checkFlags struct {
	config, output string
	offline        bool
}

// newCheckCommand makes `millrace check`.
func newCheckCommand() *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:     "check",
		GroupID: groupOperate,
		Short:   "Say what is wrong with a configuration, and with what it names",
		Long: `Reads a configuration, the secrets, directories and files that it names, and unless
--offline asks every storage account, event hub, the container of a shared ledger,
every server of ClickHouse and the brokers of Kafka whether a pipeline could work with
them: rights, the retention of hubs against how far they were read, settings that
break the promise. Everything is told at once. Nothing is written anywhere, but for a
transactional id, PROGRESS_TOPIC/check, that Kafka's brokers keep for a while. A key
with a fault keeps the services of its section from being asked.

The exit code is 0 when a pipeline can start, 1 when something must be mended, and
2 when there is no such file.`,
		Example: `  millrace check -c millrace.yaml
  millrace check -c millrace.yaml --offline -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	cmd.Flags().StringVarP(&f.config, "config", "c", "millrace.yaml", "configuration file")
	cmd.Flags().StringVarP(&f.output, "output", "o", "text", "text or json")
	cmd.Flags().BoolVar(&f.offline, "offline", false, "ask no service")
	return cmd
}

func (f checkFlags) run(cmd *cobra.Command) error {
	if f.output != "text" && f.output != "json" {
		return usageErrorf("-o %q: want text or json", f.output)
	}
	data, err := os.ReadFile(f.config)
	if err != nil {
		return usageErrorf("read configuration: %w: name the file with --config", err)
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT)
	defer stop()
	findings := check.Run(ctx, data, f.offline)
	faults := 0
	for _, finding := range findings {
		if finding.Level == check.Fault {
			faults++
		}
	}
	print := printFindings
	if f.output == "json" {
		print = printFindingsJSON
	}
	if err := print(cmd.OutOrStdout(), f.config, findings); err != nil {
		return err
	}
	if faults > 0 {
		return &exitError{code: exitFailed}
	}
	return nil
}

func printFindingsJSON(w io.Writer, file string, findings []check.Finding) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		File     string          `json:"file"`
		Findings []check.Finding `json:"findings"`
	}{file, findings})
}

// printFindings prints a line a finding, what is good first: what must be mended
// stands last, where a terminal shows it.
func printFindings(w io.Writer, file string, findings []check.Finding) error {
	counts := map[check.Level]int{}
	for _, f := range findings {
		counts[f.Level]++
		place := file
		if f.Line > 0 {
			place = fmt.Sprintf("%s:%d:%d", file, f.Line, f.Column)
		}
		key := ""
		if f.Key != "" {
			key = f.Key + ": "
		}
		if f.Level == check.OK {
			place = ""
		} else {
			place += " "
		}
		fmt.Fprintf(w, "%-6s%s%s%s\n", map[check.Level]string{check.OK: "OK", check.Warn: "WARN", check.Fault: "FAULT"}[f.Level], place, key, f.Text)
	}
	_, err := fmt.Fprintf(w, "good: %d, warnings: %d, faults: %d\n", counts[check.OK], counts[check.Warn], counts[check.Fault])
	return err
}
