package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// looksSecret reports whether someone gave a token where an id is wanted, so that it
// is not repeated in an error.
func looksSecret(s string) bool { return strings.Contains(s, contract.TokenPrefix) }

// livePeriod is a period as Postgres has it, and what Redis, which the proxies ask,
// has beside it. The ledger follows Redis by less than a second.
type livePeriod struct {
	control.UsagePeriod
	Live *liveUsage `json:"redis"` // null if Redis did not answer
}

type liveUsage struct {
	Limit   int64 `json:"limit_tokens"`
	Settled int64 `json:"settled_tokens"`
	Held    int64 `json:"held_tokens"` // leased by proxies: in flight, not yet settled, or spare
}

// live asks Redis. Without an answer the command goes on with what Postgres knows.
func (s *session) live(ctx context.Context, cmd *cobra.Command, p control.UsagePeriod) livePeriod {
	u, err := s.limits.Usage(ctx, quota.Account{
		Customer: p.CustomerID, Period: p.Period(), Limit: p.LimitTokens, LimitVersion: p.LimitVersion,
	})
	if err != nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "openclawctl: warning:", err)
		return livePeriod{UsagePeriod: p}
	}
	return livePeriod{p, &liveUsage{Limit: u.Limit, Settled: u.Settled, Held: u.Held}}
}

// columns of the part of a table that comes from Redis.
func (l *liveUsage) columns() (settled, held string) {
	if l == nil {
		return "?", "?"
	}
	return number(l.Settled), number(l.Held)
}

func (a *app) quotaCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "quota", Short: "Set and show the monthly limit", Args: cobra.NoArgs}
	cmd.AddCommand(a.quotaSetCommand(), a.quotaShowCommand())
	return cmd
}

func (a *app) quotaSetCommand() *cobra.Command {
	var customer string
	var limit int64
	cmd := &cobra.Command{
		Use:   "set --customer ID --limit TOKENS",
		Short: "Set the limit of the present period",
		Long: `set changes how many weighted tokens a customer may use in the present period. It
takes effect at once, also for requests in flight. A limit below what is used already
refuses new requests. The next period begins with the tier's limit again.`,
		Example: `  openclawctl quota set --customer c4mzq7n2k5w3xj6ha --limit 2000000
  openclawctl quota set --customer c4mzq7n2k5w3xj6ha --limit 0      # refuse everything`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 0 {
				return usageError{errors.New("--limit must not be negative")}
			}
			return a.with(cmd, func(ctx context.Context, s *session) error {
				p, err := s.service.SetLimit(ctx, a.actor, customer, limit)
				if err != nil {
					return err
				}
				return a.showQuota(cmd, s.live(ctx, cmd, p))
			})
		},
	}
	cmd.Flags().StringVar(&customer, "customer", "", "the customer's id (required)")
	cmd.Flags().Int64Var(&limit, "limit", 0, "weighted tokens per period (required)")
	for _, name := range []string{"customer", "limit"} {
		_ = cmd.MarkFlagRequired(name) // fails only for a flag that is not there
	}
	return cmd
}

func (a *app) quotaShowCommand() *cobra.Command {
	var customer string
	cmd := &cobra.Command{
		Use:   "show --customer ID",
		Short: "Show the limit of the present period and what is used of it",
		Long: `show prints the limit of the present period, what is charged to it according to
Postgres (SETTLED) and to Redis (REDIS), and what proxies lease of it for requests in
flight and those to come (HELD).`,
		Example: `  openclawctl quota show --customer c4mzq7n2k5w3xj6ha`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				if _, err := s.store.Customer(ctx, customer); err != nil {
					return err
				}
				p, err := s.store.PeriodAt(ctx, customer, time.Now())
				if err != nil {
					return err
				}
				return a.showQuota(cmd, s.live(ctx, cmd, p))
			})
		},
	}
	cmd.Flags().StringVar(&customer, "customer", "", "the customer's id (required)")
	_ = cmd.MarkFlagRequired("customer") // fails only for a flag that is not there
	return cmd
}

func (a *app) showQuota(cmd *cobra.Command, p livePeriod) error {
	settled, held := p.Live.columns()
	used := p.Totals.Settled
	if p.Live != nil {
		used = max(used, p.Live.Settled)
	}
	return a.show(cmd, p, table{
		head: []string{"CUSTOMER", "PERIOD", "LIMIT", "SETTLED", "REDIS", "HELD", "LEFT", "ENDS"},
		rows: [][]string{{
			p.CustomerID, p.ID, number(p.LimitTokens), number(p.Totals.Settled), settled, held,
			number(max(p.LimitTokens-used, 0)), when(p.End),
		}},
	})
}
