package main

import (
	"context"

	"github.com/spf13/cobra"
)

func (a *app) feedCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "feed", Short: "Look after what the proxies know", Args: cobra.NoArgs}
	cmd.AddCommand(a.feedRepublishCommand())
	return cmd
}

func (a *app) feedRepublishCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "republish",
		Short: "Write all grants to Redis again",
		Long: `republish writes to Redis the grants of all tokens, as Postgres has them. It lowers and
removes nothing: grants that are newer in Redis get a newer version, a revoked token
stays revoked. Limits and what was used of them are the billing-worker's business.

The billing-worker does this by itself when Redis has lost its data. By hand it is for
a Postgres that was restored from a backup, and for a changed tier table. SKIPPED tokens
have no grant that can be computed, as when their tier is not in the table.` + directNote,
		Example: `  openclawctl feed republish`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				done, err := s.service.RepublishAll(ctx)
				if err != nil && done.Skipped == 0 {
					return err
				}
				serr := a.show(cmd, done, table{
					head: []string{"CUSTOMERS", "TOKENS", "SKIPPED"},
					rows: [][]string{{number(int64(done.Customers)), number(int64(done.Tokens)), number(int64(done.Skipped))}},
				})
				if err != nil {
					return err
				}
				return serr
			})
		},
	}
}
