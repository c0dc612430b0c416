package main

import (
	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/bench/trace"
)

func (a *app) traceCommand() *cobra.Command {
	var n int
	var seed uint64
	cmd := &cobra.Command{
		Use:     "trace",
		Short:   "Make a trace like Mooncake's hour of Kimi traffic, and print it",
		Example: `  openclaw-bench trace --requests 12000 > hour.jsonl`,
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return trace.Write(a.stdout, trace.Generate(n, seed)) },
	}
	cmd.Flags().IntVar(&n, "requests", 300, "how many; 12,000 are about an hour")
	cmd.Flags().Uint64Var(&seed, "seed", 1, "the same seed makes the same trace")
	return cmd
}
