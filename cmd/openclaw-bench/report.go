package main

import (
	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/bench/report"
)

func (a *app) reportCommand() *cobra.Command {
	var results, out string
	cmd := &cobra.Command{
		Use:     "report",
		Short:   "Write BENCHMARKS.md from the latest results",
		Long:    `report reads the latest result of each kind and writes BENCHMARKS.md, with plots beside the results.`,
		Example: `  openclaw-bench report`,
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return report.Write(results, out) },
	}
	cmd.Flags().StringVar(&results, "results", "bench/results", "directory with the results")
	cmd.Flags().StringVar(&out, "out", "BENCHMARKS.md", "file to write; links in it are relative to the working directory")
	return cmd
}
