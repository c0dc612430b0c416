package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) usageCommand() *cobra.Command {
	var q usageQuery
	var from, to string
	cmd := calls("getCustomerUsage getPlatformUsage", &cobra.Command{
		Use:   "usage [--customer ID]",
		Short: "Show what a customer used, or all of them together",
		Long: `usage prints what a customer used: the totals of the present period, and what was used by day
(UTC) and model in it, or from --from to --to. SETTLED is what is charged to the limit according
to Postgres, REDIS the same according to Redis, which is ahead by less than a second; PROMPT
includes CACHED and COMPLETION includes REASONING.

Without --customer it prints what is used in the present periods of all customers, by tier.

On the databases (--direct) it shows the newest periods (--periods) and the newest requests
(--events) too.`,
		Example: `  openclawctl usage --customer c4mzq7n2k5w3xj6ha
  openclawctl usage --customer c4mzq7n2k5w3xj6ha --from 2026-01-01 --to 2026-02-01
  openclawctl usage
  openclawctl usage --customer c4mzq7n2k5w3xj6ha --direct --events 100 --output json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.events < 0 || q.events > maxRows || q.periods < 1 || q.periods > maxRows {
				return usageError{errors.New("--events and --periods must be in 0…10000 and 1…10000")}
			}
			q.own = cmd.Flags().Changed("events") || cmd.Flags().Changed("periods")
			var err error
			if q.from, err = moment("from", from); err != nil {
				return err
			}
			if q.to, err = moment("to", to); err != nil {
				return err
			}
			switch {
			case q.from.IsZero() != q.to.IsZero():
				return usageError{errors.New("give both --from and --to, or neither")}
			case !q.from.IsZero() && !q.from.Before(q.to):
				return usageError{errors.New("--from must be before --to")}
			case q.customer == "" && (q.own || from != ""):
				return usageError{errors.New("--from, --to, --periods and --events need --customer")}
			}
			return a.on(cmd, func(ctx context.Context, b backend) error {
				if q.customer == "" {
					return a.showPlatformUsage(ctx, cmd, b)
				}
				return a.showUsage(ctx, cmd, b, q)
			})
		},
	})
	cmd.Flags().StringVar(&q.customer, "customer", "", "the customer's id; without it all customers together")
	complete(cmd, "customer", a.customerIDs)
	cmd.Flags().StringVar(&from, "from", "", "from this day or time on, such as 2026-01-31 or 2026-01-31T12:00:00Z")
	cmd.Flags().StringVar(&to, "to", "", "before this day or time; at most 366 days after --from")
	cmd.Flags().IntVar(&q.events, "events", 10, "how many of the newest requests to show (with --direct)")
	cmd.Flags().IntVar(&q.periods, "periods", 3, "how many of the newest periods to show (with --direct)")
	return cmd
}

// moment reads a day or a time.
func moment(flag, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, usageError{fmt.Errorf("--%s %q: write it like 2026-01-31, or 2026-01-31T12:00:00Z", flag, s)}
}

// maxRows keeps a slip of the finger from asking for everything.
const maxRows = 10_000

func (a *app) showUsage(ctx context.Context, cmd *cobra.Command, b backend, q usageQuery) error {
	v, err := b.usage(ctx, q)
	if err != nil {
		return err
	}
	totals := table{head: []string{
		"PERIOD", "ENDS", "REQUESTS", "PROMPT", "CACHED", "COMPLETION", "REASONING", "SETTLED", "REDIS", "UNBILLED", "LIMIT",
	}}
	for _, p := range v.Periods {
		settled, _ := p.live()
		t := p.Totals
		totals.rows = append(totals.rows, []string{
			p.ID, when(p.End), number(t.Requests), number(t.Prompt), number(t.Cached), number(t.Completion),
			number(t.Reasoning), number(t.Settled), settled, number(t.Unbilled), number(p.LimitTokens),
		})
	}
	days := table{head: []string{"DAY", "MODEL", "REQUESTS", "PROMPT", "CACHED", "COMPLETION", "REASONING", "SETTLED"}}
	for _, d := range v.Days {
		days.rows = append(days.rows, []string{
			d.Day.UTC().Format(time.DateOnly), d.Model, number(d.Requests), number(d.Prompt), number(d.Cached), number(d.Completion),
			number(d.Reasoning), number(d.Settled),
		})
	}
	requests := table{head: []string{
		"ADMITTED", "REQUEST", "MODEL", "FACE", "PROMPT", "COMPLETION", "SETTLED", "BASIS", "OUTCOME", "STATUS", "SECONDS",
	}}
	for _, e := range v.Events {
		requests.rows = append(requests.rows, []string{
			when(e.AdmittedAt), e.RequestID, e.ModelServed, string(e.Face), number(e.Prompt), number(e.Completion),
			number(e.Settled), string(e.Basis), string(e.Outcome), strconv.Itoa(e.Status),
			strconv.FormatFloat((time.Duration(e.DurationMicros) * time.Microsecond).Seconds(), 'f', 3, 64),
		})
	}
	return a.show(cmd, v, appendTable(appendTable([]table{totals}, days), requests)...)
}

func (a *app) showPlatformUsage(ctx context.Context, cmd *cobra.Command, b backend) error {
	v, err := b.platformUsage(ctx)
	if err != nil {
		return err
	}
	t := table{head: []string{"TIER", "CUSTOMERS", "REQUESTS", "PROMPT", "CACHED", "COMPLETION", "REASONING", "SETTLED", "UNBILLED", "LIMIT"}}
	for _, u := range v.Tiers {
		t.rows = append(t.rows, []string{
			u.Tier, number(u.Customers), number(u.Totals.Requests), number(u.Totals.Prompt), number(u.Totals.Cached),
			number(u.Totals.Completion), number(u.Totals.Reasoning), number(u.Totals.Settled), number(u.Totals.Unbilled), number(u.Limit),
		})
	}
	return a.show(cmd, v, t)
}
