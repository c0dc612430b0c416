package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/billing/stripe"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
)

func (a *app) billingCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "billing", Short: "Set up the Stripe account that customers pay to, and see what it sent", Args: cobra.NoArgs}
	grouped(cmd, groupAPI, a.billingEventsCommand(), a.billingRetryCommand())
	grouped(cmd, groupDatabase, a.bootstrapCommand())
	return cmd
}

func (a *app) bootstrapCommand() *cobra.Command {
	var webhook string
	cmd := &cobra.Command{
		Use:   "bootstrap --webhook-url URL",
		Short: "Make products, prices, the meter, the portal and the webhook endpoint in Stripe",
		Long: `bootstrap makes the account of $STRIPE_SECRET_KEY sell the tiers of the tier table that is in
effect, which it asks DATABASE_URL for. Without that it is the table that this build comes with,
which is right as long as no billing-worker has been given another one; it says which one it goes by. There are a product and a monthly price for each, the price of tokens
above the limit with its meter, the configuration of the billing portal, in which customers
cancel with the period only, and the webhook endpoint, at the version of Stripe's API that this
build speaks.

What is there already, as it should be, stays, so that running it again changes nothing. A
price that has changed is followed by a new one; subscriptions keep the old one. Nothing is
removed, but an endpoint at the same URL with another version is disabled.

The secret of a new webhook endpoint is printed once: Stripe does not tell it again.

It speaks to Stripe itself, and does not need the api, which has to be told that secret before it
can take payments.`,
		Example: `  STRIPE_SECRET_KEY=… openclawctl billing bootstrap --webhook-url https://api.example.com/v1/webhooks/stripe`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			account, err := stripe.NewAccount(a.getenv("STRIPE_SECRET_KEY"), a.getenv("STRIPE_URL"))
			if err != nil {
				return usageError{fmt.Errorf("STRIPE_SECRET_KEY: %w", err)}
			}
			tierTable, from, err := a.tiersInEffect(cmd.Context())
			if err != nil {
				return err
			}
			var sold []string
			for _, t := range tierTable.All() {
				sold = append(sold, fmt.Sprintf("%s at $%d.%02d", t.Name, t.PriceCents/100, t.PriceCents%100))
			}
			if a.output == "table" { // before anything is made
				fmt.Fprintf(cmd.OutOrStdout(), "The tiers are those of %s: %s\n\n", from, strings.Join(sold, ", "))
			}
			done, err := stripe.Bootstrap(cmd.Context(), account, tierTable, webhook)
			out := table{head: []string{"KIND", "NAME", "ID", "ACTION"}}
			for _, c := range done.Changes {
				out.rows = append(out.rows, []string{c.Kind, c.Name, c.ID, c.Action})
			}
			// What was made before an error is there, and its secret is not told again.
			if err == nil || len(done.Changes) > 0 {
				data := struct {
					stripe.Bootstrapped
					TierTable string `json:"tier_table"`
				}{done, from}
				if serr := a.show(cmd, data, out); serr != nil {
					return serr
				}
			}
			if a.output == "table" && done.WebhookSecret != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "\nWebhook secret, for STRIPE_WEBHOOK_SECRETS of the api:\n%s\n", done.WebhookSecret)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&webhook, "webhook-url", "", "where Stripe sends its events: the api's public address")
	_ = cmd.MarkFlagRequired("webhook-url") // the flag is there
	return cmd
}

// tiersInEffect is the tier table of the database, if the command line or the environment name
// one, or else that of this build; from says which. A database that does not answer is an error:
// prices of a table that does not hold any more would be sold.
func (a *app) tiersInEffect(ctx context.Context) (table control.Tiers, from string, err error) {
	sold, err := tiers.Default()
	database := a.databaseURL()
	if err != nil || database == "" {
		return sold, "the table that this build comes with, as there is no DATABASE_URL", err
	}
	if !isPostgres(database) {
		return sold, "", usageError{errNoPostgres}
	}
	st, err := openStore(ctx, database)
	if err != nil {
		return sold, "", err
	}
	defer st.Close()
	service := &customers.Service{Store: st, Tiers: sold}
	return sold, "the table in effect, by the database", service.LoadTiers(ctx)
}

// overageWithin is how far back Stripe takes reports, and so how far they are compared unless told otherwise.
const overageWithin = 35 * 24 * time.Hour

// overageSettle is how long ago what was used has to be recorded to be missed among the reports:
// billing-workers write them each minute.
const overageSettle = 10 * time.Minute

func (a *app) showReports(cmd *cobra.Command, list []control.OverageCheck) error {
	if len(list) == 0 {
		return nil
	}
	t := table{head: []string{"CUSTOMER", "PERIOD", "SUBSCRIPTION", "USED ABOVE THE LIMIT", "AT MOST", "REPORTED"}}
	for _, c := range list {
		t.rows = append(t.rows, []string{
			c.CustomerID, c.PeriodID, strings.Join(c.Subscriptions, ","), number(c.Due), number(c.Most), number(c.Reported),
		})
	}
	return a.show(cmd, nil, t)
}

// verifyOverage compares what was reported to Stripe of periods that go on or ended after a time,
// if the environment says how to reach it.
func (a *app) verifyOverage(ctx context.Context, s *session, customer string, ended time.Time) ([]stripe.MeterCheck, error) {
	key := a.getenv("STRIPE_SECRET_KEY")
	if key == "" {
		return nil, nil
	}
	account, err := stripe.NewAccount(key, a.getenv("STRIPE_URL"))
	if err != nil {
		return nil, err
	}
	m := &stripe.Meter{Account: account, Customers: s.service}
	list, _, err := m.VerifyAll(ctx, customer, ended)
	return list, err
}

func (a *app) showOverage(cmd *cobra.Command, list []stripe.MeterCheck) error {
	if len(list) == 0 {
		return nil
	}
	t := table{head: []string{"CUSTOMER", "SINCE", "REPORTED MICROCENTS", "STRIPE", "WAITING", "WHY"}}
	for _, c := range list {
		t.rows = append(t.rows, []string{c.CustomerID, when(c.Since), number(c.Reported), number(c.Stripe), number(c.Waiting), printable(c.Why)})
	}
	return a.show(cmd, nil, t)
}
