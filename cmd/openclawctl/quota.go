package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// looksSecret reports whether someone gave a token where an id is wanted, so that it
// is not repeated in an error.
func looksSecret(s string) bool { return strings.Contains(s, contract.TokenPrefix) }

func (a *app) quotaCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "quota", Short: "Set, add to, reset and show the monthly limit", Args: cobra.NoArgs}
	cmd.AddCommand(a.quotaSetCommand(), a.quotaAddCommand(), a.quotaResetCommand(), a.quotaShowCommand())
	return cmd
}

// appliedNote is in the help of what changes a limit.
const appliedNote = `

By the api it waits until each proxy that lives has acknowledged the new limit, and prints how
long that took, counted from before the change was saved. If one does not within two seconds, the
exit code is 3: the change holds, and that proxy applies it once it hears from Redis.`

func (a *app) quotaSetCommand() *cobra.Command {
	var limit int64
	cmd := &cobra.Command{
		Use:   "set --customer ID --limit TOKENS",
		Short: "Set the limit of the present period",
		Long: `set changes how many weighted tokens a customer may use in the present period. It
takes effect at once, also for requests in flight. A limit below what is used already
refuses new requests. One that was lowered stays so, whatever the customer then pays for on
top; a larger tier adds what it has more. The next period begins with the tier's limit again.` + appliedNote,
		Example: `  openclawctl quota set --customer c4mzq7n2k5w3xj6ha --limit 2000000 --reason "agreed by mail"
  openclawctl quota set --customer c4mzq7n2k5w3xj6ha --limit 0 --reason abuse     # refuse everything`,
	}
	cmd.Flags().Int64Var(&limit, "limit", 0, "weighted tokens per period (required)")
	_ = cmd.MarkFlagRequired("limit") // fails only for a flag that is not there
	return a.quotaChangeCommand(cmd, func(c *customers.LimitChange) error {
		if limit < 0 {
			return usageError{errors.New("--limit must not be negative")}
		}
		c.To = &limit
		return nil
	})
}

func (a *app) quotaAddCommand() *cobra.Command {
	var tokens int64
	cmd := &cobra.Command{
		Use:   "add --customer ID --tokens TOKENS",
		Short: "Add to the limit of the present period",
		Long: `add changes the limit of the present period by a number of weighted tokens. A negative number
lowers it, to 0 at least. Two that add at once both count.` + appliedNote,
		Example: `  openclawctl quota add --customer c4mzq7n2k5w3xj6ha --tokens 500000 --reason "for the outage of Monday"`,
	}
	cmd.Flags().Int64Var(&tokens, "tokens", 0, "weighted tokens; negative to lower (required)")
	_ = cmd.MarkFlagRequired("tokens") // fails only for a flag that is not there
	return a.quotaChangeCommand(cmd, func(c *customers.LimitChange) error {
		if tokens == 0 {
			return usageError{errors.New("--tokens must not be 0")}
		}
		c.Add = tokens
		return nil
	})
}

func (a *app) quotaResetCommand() *cobra.Command {
	return a.quotaChangeCommand(&cobra.Command{
		Use:     "reset --customer ID",
		Short:   "Set the limit of the present period to what its price includes",
		Long:    `reset undoes "set" and "add". What the customer pays for on top comes on top.` + appliedNote,
		Example: `  openclawctl quota reset --customer c4mzq7n2k5w3xj6ha --reason "the gift has ended"`,
	}, func(c *customers.LimitChange) error {
		c.Reset = true
		return nil
	})
}

// quotaChangeCommand completes cmd so that it changes a limit as read says.
func (a *app) quotaChangeCommand(cmd *cobra.Command, read func(*customers.LimitChange) error) *cobra.Command {
	var customer string
	var change customers.LimitChange
	calls("changeQuota", cmd)
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := read(&change); err != nil {
			return err
		}
		return a.on(cmd, func(ctx context.Context, b backend) error {
			q, err := b.changeQuota(ctx, customer, change)
			if err != nil && !holds(err) {
				return err
			}
			serr := a.show(cmd, q, quotaTable(q.periodView))
			if serr == nil && q.Replicas != nil && a.output == "table" {
				fmt.Fprintln(cmd.OutOrStdout(), sentence(*q.Replicas))
			}
			if err == nil && q.Replicas != nil && !q.Replicas.All {
				err = fmt.Errorf("%s: %w", missing(*q.Replicas), errNotApplied)
			}
			return errors.Join(serr, err)
		})
	}
	a.customerFlag(cmd, &customer)
	reasonFlag(cmd, &change.Reason)
	return cmd
}

// errNotApplied says that a proxy that should live has not applied a change in time.
var errNotApplied = errors.New("the change holds, but it is not applied there yet")

// sentence says which proxies apply a limit, and since when.
func sentence(r api.Replicas) string {
	var times []string
	for _, k := range r.Applied {
		if k.Applied {
			times = append(times, fmt.Sprintf("%.1f", k.AfterMS))
		}
	}
	switch {
	case len(r.Applied) == 0:
		return "No proxy lives that would have to know."
	case r.All && len(times) == 1:
		return fmt.Sprintf("The one proxy applies it, after %s ms.", times[0])
	case r.All:
		return fmt.Sprintf("All %d proxies apply it, the last one after %.1f ms (%s).", len(times), r.TookMS, strings.Join(times, ", "))
	}
	return fmt.Sprintf("%d of %d proxies apply it after %.1f ms.", len(times), len(r.Applied), r.TookMS)
}

// missing names the proxies that do not apply a limit.
func missing(r api.Replicas) string {
	var ids []string
	for _, k := range r.Applied {
		if !k.Applied {
			ids = append(ids, k.Replica)
		}
	}
	return "replica " + strings.Join(ids, ", ")
}

func (a *app) quotaShowCommand() *cobra.Command {
	var customer string
	cmd := calls("getQuota", &cobra.Command{
		Use:   "show --customer ID",
		Short: "Show the limit of the present period and what is used of it",
		Long: `show prints the limit of the present period, what is charged to it according to
Postgres (SETTLED) and to Redis (REDIS), and what proxies lease of it for requests in
flight and those to come (HELD, which the api does not tell).`,
		Example: `  openclawctl quota show --customer c4mzq7n2k5w3xj6ha`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.on(cmd, func(ctx context.Context, b backend) error {
				p, err := b.quota(ctx, customer)
				if err != nil {
					return err
				}
				return a.show(cmd, p, quotaTable(p))
			})
		},
	})
	a.customerFlag(cmd, &customer)
	return cmd
}

func quotaTable(p periodView) table {
	settled, held := p.live()
	return table{
		head: []string{"CUSTOMER", "PERIOD", "LIMIT", "SETTLED", "REDIS", "HELD", "LEFT", "ENDS"},
		rows: [][]string{{
			p.CustomerID, p.ID, number(p.LimitTokens), number(p.Totals.Settled), settled, held,
			number(p.Left), when(p.End),
		}},
	}
}
