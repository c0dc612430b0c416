package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/billing"
	"github.com/andreabadesso/openclaw-cloud/control/billing/stripe"
	"github.com/andreabadesso/openclaw-cloud/control/limits"
)

func (a *app) ledgerCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "ledger", Short: "Verify what was metered, and look after what could not be recorded", Args: cobra.NoArgs}
	grouped(cmd, groupEither, a.deadLettersCommand(), a.replicasCommand())
	grouped(cmd, groupDatabase, a.verifyCommand(), a.declareLostCommand())
	return cmd
}

// errDifferent says that the ledger was looked at and does not agree with itself.
var errDifferent = errors.New("the ledger differs")

func (a *app) verifyCommand() *cobra.Command {
	var o billing.VerifyOptions
	var repair bool
	within := overageWithin
	cmd := &cobra.Command{
		Use:   "verify [--customer ID] [--period P]",
		Short: "Compare totals with events, and Redis with both",
		Long: `verify sums up the events of each period and compares the sums with the period's
totals and with what Redis charges to the limit. It prints the periods that differ,
and then exits with 4.

Events need a moment from Redis to Postgres, and limits are charged in Redis about once a
second: where only Redis differs, verify looks again for --wait. If events are still on
their way then, as with a customer that is busy all the time or a proxy that is away,
Redis and Postgres cannot be compared; verify says so, and that is no difference.
Periods that began before the months whose events are kept are not compared.

What the events of a period come to above its limit, where a customer pays for that, is compared
with the reports that were written of it for Stripe: of periods that go on or ended within 35
days, and without what was recorded in the last 10 minutes.

With $STRIPE_SECRET_KEY what was reported to Stripe as used above limits, in periods that go
on or ended within 35 days, is compared with Stripe's own sums. Stripe takes some minutes for
those. WAITING is what Stripe has not taken yet, and WHY what the last attempt came to.

--overage-within 2160h looks further back in both. Of periods whose events are not all kept any
more only the reports and Stripe's sums are compared.

With --repair-totals the totals are set to the sums of the events, which is written
to the audit log, and everything is verified once more.` + directNote,
		Example: `  openclawctl ledger verify
  openclawctl ledger verify --customer c4mzq7n2k5w3xj6ha --output json
  openclawctl ledger verify --customer c4mzq7n2k5w3xj6ha --period 20310501T102030Z --repair-totals`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Wait < 0 {
				return usageError{errors.New("--wait must not be negative")}
			}
			if within < 0 {
				return usageError{errors.New("--overage-within must not be negative")}
			}
			return a.with(cmd, func(ctx context.Context, s *session) error {
				return a.verify(ctx, cmd, s, o, within, repair)
			})
		},
	}
	cmd.Flags().StringVar(&o.Customer, "customer", "", "only this customer")
	cmd.Flags().StringVar(&o.Period, "period", "", "only the period with this id")
	cmd.Flags().DurationVar(&o.Wait, "wait", defaultWait, "for how long to look again where Redis differs")
	cmd.Flags().DurationVar(&within, "overage-within", within, "how long ago a period may have ended whose use above the limit is compared")
	cmd.Flags().BoolVar(&repair, "repair-totals", false, "set totals that differ to the sums of their events")
	return cmd
}

// lostLeases frees the leases of lost replicas.
type lostLeases struct {
	records *limits.Records
	grace   time.Duration
}

func (l lostLeases) GiveUp(ctx context.Context, replica string) ([]control.Released, error) {
	return l.records.GiveUp(ctx, replica, l.grace)
}

func (a *app) verify(ctx context.Context, cmd *cobra.Command, s *session, o billing.VerifyOptions, within time.Duration, repair bool) error {
	books := s.books()
	v, err := books.Verify(ctx, o)
	if err != nil {
		return err
	}
	repaired := 0
	if repair && len(v.Different) > 0 {
		if repaired, err = books.RepairTotals(ctx, a.actor, v.Different); err != nil {
			return err
		}
		if v, err = books.Verify(ctx, o); err != nil {
			return err
		}
	}
	ended := time.Now().Add(-within)
	reports, _, err := s.service.VerifyOverage(ctx, o.Customer, ended, overageSettle)
	if err != nil {
		return err
	}
	overage, err := a.verifyOverage(ctx, s, o.Customer, ended)
	if err != nil {
		return err
	}
	data := struct {
		billing.Verified
		Repaired int                    `json:"repaired"`
		Reports  []control.OverageCheck `json:"overage_reports,omitempty"`
		Overage  []stripe.MeterCheck    `json:"overage,omitempty"`
	}{v, repaired, reports, overage}
	if a.output != "table" {
		err = a.show(cmd, data)
	} else {
		err = errors.Join(a.showVerified(cmd, v, repaired), a.showReports(cmd, reports), a.showOverage(cmd, overage))
	}
	var differ []string
	if len(v.Different) > 0 {
		differ = append(differ, fmt.Sprintf("%d of %d periods", len(v.Different), v.Periods))
	}
	if len(reports) > 0 {
		differ = append(differ, fmt.Sprintf("of %d periods something else was reported than was used above the limit", len(reports)))
	}
	if slices.ContainsFunc(overage, func(c stripe.MeterCheck) bool { return c.Differs() }) {
		differ = append(differ, "Stripe counts other tokens above limits than were reported")
	}
	if err == nil && len(differ) > 0 {
		err = fmt.Errorf("%w: %s", errDifferent, strings.Join(differ, "; "))
	}
	return err
}

// shownOnTheWay is how many periods are named that cannot be compared.
const shownOnTheWay = 10

func (a *app) showVerified(cmd *cobra.Command, v billing.Verified, repaired int) error {
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "verified %d periods, %d differ, %d repaired, %d too old to compare\n", v.Periods, len(v.Different), repaired, v.NotKept)
	for i, c := range v.OnTheWay {
		if i == shownOnTheWay {
			fmt.Fprintf(out, "%d more with events on their way\n", len(v.OnTheWay)-i)
			break
		}
		fmt.Fprintf(out, "customer %s, period %s: not compared with Redis: %s\n", c.CustomerID, c.PeriodID, printable(c.OnTheWay))
	}
	if len(v.Different) == 0 {
		return nil
	}
	t := table{head: []string{"CUSTOMER", "PERIOD", "WHAT", "TOTALS", "EVENTS", "REDIS"}}
	for _, c := range v.Different {
		row := func(what string, recorded, counted int64, redis string) {
			t.rows = append(t.rows, []string{c.CustomerID, c.PeriodID, what, number(recorded), number(counted), redis})
		}
		r, n := c.Recorded, c.Counted
		for _, f := range []struct {
			what              string
			recorded, counted int64
		}{
			{"requests", r.Requests, n.Requests}, {"prompt", r.Prompt, n.Prompt}, {"cached", r.Cached, n.Cached},
			{"completion", r.Completion, n.Completion}, {"reasoning", r.Reasoning, n.Reasoning}, {"unbilled", r.Unbilled, n.Unbilled},
		} {
			if f.recorded != f.counted {
				row(f.what, f.recorded, f.counted, "")
			}
		}
		if c.WrongDays != 0 {
			t.rows = append(t.rows, []string{c.CustomerID, c.PeriodID, "days", number(c.WrongDays) + " differ", "", ""})
		}
		if r.Settled != n.Settled || c.RedisDiffers() {
			redis := "-"
			if c.Redis != nil {
				redis = number(*c.Redis)
			}
			row("settled", r.Settled, n.Settled, redis)
		}
	}
	if v.Parked {
		defer fmt.Fprintln(out, "Dead letters wait. Where Redis has more, that may be why: openclawctl ledger deadletters list")
	}
	return a.show(cmd, nil, t)
}

func (a *app) replicasCommand() *cobra.Command {
	var limit int
	cmd := calls("listReplicas", &cobra.Command{
		Use:   "replicas",
		Short: "List the proxies' journals and what they may forget",
		Long: `replicas lists every token-proxy, by the id of its journal, that was ever registered
or sent an event, those that sent one last first. All of its events up to ACKED are in
Postgres; HIGHEST is the highest number that is. Where the two differ for longer than a
moment, an event between them is missing: on its way, or parked in a form that shows no
number.

After a loss of Redis' data limits are leased again only when every replica that is
REGISTERED has told what it holds, or was declared lost. LAST BEAT is when the
billing-worker last noted a new sign of life of it, to a few seconds.`,
		Example: `  openclawctl ledger replicas
  openclawctl ledger replicas --limit 10 --output json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkLimit(limit); err != nil {
				return err
			}
			return a.on(cmd, func(ctx context.Context, b backend) error {
				list, err := b.replicas(ctx, limit)
				if err != nil {
					return err
				}
				t := table{head: []string{"REPLICA", "STATUS", "REGISTERED", "LAST BEAT", "FIRST SEEN", "LAST SEEN", "ACKED", "HIGHEST", "LOST", "REASON"}}
				for _, r := range list {
					t.rows = append(t.rows, []string{
						r.ID, string(r.Status), when(r.RegisteredAt), when(r.LastBeat), when(r.FirstSeen), when(r.LastSeen),
						number(r.Acked), number(r.Highest), when(r.LostAt), r.LostReason,
					})
				}
				return a.show(cmd, nonNil(list), t)
			})
		},
	})
	cmd.Flags().IntVar(&limit, "limit", defaultRows, "how many to show")
	return cmd
}

// minGrace is less than any token-proxy should have. With less, a slip of the pen would give
// tokens to others that are still used.
const minGrace = time.Second

func (a *app) declareLostCommand() *cobra.Command {
	var reason string
	var grace time.Duration
	var force bool
	cmd := &cobra.Command{
		Use:   "declare-lost REPLICA --reason TEXT",
		Short: "Record that a proxy's journal will not come back, and free what it leased",
		Long: `declare-lost records, in the audit log too, that the journal of a token-proxy will not
come back, such as after the loss of its node. What that journal held and did not send
is then lost: declare nothing lost that may still start again.

Then it tells the proxy, should it live in spite of all, that it may serve nothing any
more, waits until it cannot use what it leased (--grace, or less if it has been silent
for longer), settles what it had used as far as Postgres knows, and frees the rest for
others. It prints how much that was. It can be repeated after an error, and then ends
what it began; declaring it again changes neither time nor reason.

A proxy that still gives signs of life is not declared lost without --force.` + directNote,
		Example: `  openclawctl ledger declare-lost 4f2k7q5w3xj6hac4 --reason "node burnt down"`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if grace < minGrace {
				return usageError{fmt.Errorf("--grace must be at least %s, and as long as that of any token-proxy", minGrace)}
			}
			return a.with(cmd, func(ctx context.Context, s *session) error {
				return a.declareLost(ctx, cmd, s, args[0], reason, grace, force)
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit log (required)")
	cmd.Flags().DurationVar(&grace, "grace", 10*time.Second, "how long a token-proxy that hears nothing from Redis goes on, if Redis does not know that it is longer")
	cmd.Flags().BoolVar(&force, "force", false, "also if it gives signs of life")
	_ = cmd.MarkFlagRequired("reason") // fails only for a flag that is not there
	return cmd
}

func (a *app) declareLost(ctx context.Context, cmd *cobra.Command, s *session, replica, reason string, grace time.Duration, force bool) error {
	if !force {
		alive, err := s.limits.Alive(ctx, replica)
		if err != nil {
			return fmt.Errorf("is replica %s alive? %w", replica, err)
		}
		if alive {
			return fmt.Errorf("%w: replica %s gives signs of life: stop it first, or use --force", control.ErrInvalid, replica)
		}
	}
	books := s.books()
	books.Leases = lostLeases{s.limits, grace}
	if a.output == "table" {
		fmt.Fprintf(cmd.ErrOrStderr(), "openclawctl: this may take a little more than %s, until nothing that the proxy leased can be in use\n", grace)
	}
	lost, err := books.DeclareLost(ctx, a.actor, replica, reason)
	if err != nil {
		return err
	}
	leases := table{head: []string{"CUSTOMER", "PERIOD", "SETTLED", "FREED"}}
	for _, l := range lost.Leases {
		leases.rows = append(leases.rows, []string{l.CustomerID, l.PeriodID, number(l.Settled), number(l.Freed)})
	}
	leases.rows = append(leases.rows, []string{"all", "", number(lost.Settled), number(*lost.Released)})
	return a.show(cmd, lost, table{
		head: []string{"REPLICA", "STATUS", "LAST SEEN", "ACKED", "HIGHEST", "LOST", "REASON"},
		rows: [][]string{{
			lost.ID, string(lost.Status), when(lost.LastSeen), number(lost.Acked), number(lost.Highest), when(lost.LostAt), lost.LostReason,
		}},
	}, leases)
}
