package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/client"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
)

func (a *app) customerCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "customer", Short: "Create, list, show, suspend, resume and delete customers", Args: cobra.NoArgs}
	cmd.AddCommand(a.customerCreateCommand(), a.customerListCommand(), a.customerShowCommand(), a.customerSuspendCommand(), a.customerResumeCommand(), a.customerDeleteCommand())
	return cmd
}

func (a *app) customerCreateCommand() *cobra.Command {
	var n customers.NewCustomer
	cmd := calls("createCustomer", &cobra.Command{
		Use:   "create --name NAME",
		Short: "Create a customer with a box and a first period",
		Long: `create makes a customer, its box (pending until it is provisioned) and its first
billing period: one month from now, with the tier's limit. It need not pay. It prints the
ids that the other commands want.`,
		Example: `  openclawctl customer create --name "Ada Lovelace" --tier starter --email ada@example.com
  openclawctl customer create --name Acme --tier team --output json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.on(cmd, func(ctx context.Context, b backend) error {
				c, err := b.createCustomer(ctx, n)
				if err != nil {
					return err
				}
				return a.show(cmd, c, table{
					head: []string{"CUSTOMER", "NAME", "TIER", "BOX", "LIMIT", "PERIOD", "ENDS"},
					rows: [][]string{{
						c.Customer.ID, c.Customer.Name, c.Customer.Tier, c.Box.ID,
						number(c.Period.LimitTokens), c.Period.ID, when(c.Period.End),
					}},
				})
			})
		},
	})
	cmd.Flags().StringVar(&n.Name, "name", "", "the customer's name (required)")
	cmd.Flags().StringVar(&n.Email, "email", "", "the customer's email address; no two customers may share one")
	cmd.Flags().StringVar(&n.Tier, "tier", "starter", "starter, pro or team")
	complete(cmd, "tier", a.tierNames)
	_ = cmd.MarkFlagRequired("name") // fails only for a flag that is not there
	return cmd
}

// statuses are those of customers.
func statuses() []string {
	return []string{string(control.CustomerPending), string(control.CustomerActive), string(control.CustomerSuspended), string(control.CustomerCancelled)}
}

func (a *app) customerListCommand() *cobra.Command {
	var of control.CustomersFilter
	var status string
	var usedFrom, limit int
	cmd := calls("listCustomers", &cobra.Command{
		Use:   "list",
		Short: "List customers, oldest first, with what they have used",
		Long: `list prints customers, all of them or those that are asked for, with what each has used of the
limit of its present period, in percent, rounded down; "-" without a present period. It is what the
ledger has booked, seconds behind the proxies; "quota show" tells it to the token.`,
		Example: `  openclawctl customer list --output json
  openclawctl customer list --used-from 90
  openclawctl customer list --status suspended
  openclawctl customer list --search ada@`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("status", status, append(statuses(), "")...); err != nil {
				return err
			}
			if limit != 0 {
				if err := checkLimit(limit); err != nil {
					return err
				}
			}
			of.Status = control.CustomerStatus(status)
			if cmd.Flags().Changed("used-from") {
				if usedFrom < 0 || usedFrom > api.MaxUsedFrom {
					return usageError{fmt.Errorf("--used-from must be in 0…%d: percent of the limit", api.MaxUsedFrom)}
				}
				of.UsedFrom = &usedFrom
			}
			return a.on(cmd, func(ctx context.Context, b backend) error {
				list, err := b.customers(ctx, of, limit)
				if err != nil {
					return err
				}
				t := table{head: []string{"CUSTOMER", "NAME", "EMAIL", "TIER", "STATUS", "USED", "CREATED"}}
				for _, c := range list {
					t.rows = append(t.rows, []string{c.ID, c.Name, c.Email, c.Tier, string(c.Status), used(c.Period), when(c.CreatedAt)})
				}
				return a.show(cmd, list, t)
			})
		},
	})
	cmd.Flags().StringVar(&status, "status", "", "only those that are "+strings.Join(statuses(), ", "))
	cmd.Flags().StringVar(&of.Prefix, "search", "", "only those whose e-mail address or name begins so, in any case")
	cmd.Flags().IntVar(&usedFrom, "used-from", 0, "only those who have used so many percent, at least, of the limit of their present period")
	cmd.Flags().IntVar(&limit, "limit", 0, "how many to show; 0 for all")
	complete(cmd, "status", fixed(statuses()...))
	return cmd
}

// used is what is used of a limit, in percent.
func used(p *control.LimitUse) string {
	if p == nil {
		return "-"
	}
	return number(p.Percent) + " %"
}

func (a *app) customerShowCommand() *cobra.Command {
	return calls("getCustomer", &cobra.Command{
		Use:   "show CUSTOMER_ID",
		Short: "Show a customer with its boxes, tokens and subscriptions",
		Long: `show prints what there is of one customer: its account, the present period, its boxes,
tokens and subscriptions.`,
		Example:           `  openclawctl customer show c4mzq7n2k5w3xj6ha`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.customerIDs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.api(cmd, func(ctx context.Context, c *client.Client) error {
				d, err := get[api.CustomerDetails](ctx, c, "customer "+args[0], client.Path("v1", "customers", args[0]), nil)
				if err != nil {
					return err
				}
				rows := [][]string{
					{"customer", d.ID}, {"name", d.Name}, {"email", or(d.Email, "-")}, {"tier", d.Tier}, {"status", string(d.Status)},
					{"language", string(d.Language)}, {"created", when(d.CreatedAt)}, {"stripe", or(d.StripeID, "-")},
				}
				if !d.DeletedAt.IsZero() {
					rows = append(rows, []string{"deleted", when(d.DeletedAt)})
				}
				if p := d.Period; p != nil {
					rows = append(rows, []string{"period", p.ID + ", ends " + when(p.End)},
						[]string{"used", number(p.Used) + " of " + number(p.LimitTokens) + " tokens"})
				}
				tables := []table{{head: []string{"FIELD", "VALUE"}, rows: rows}}
				tables = appendTable(tables, boxTable(d.Boxes))
				tables = appendTable(tables, tokenTable(d.Tokens))
				subscriptions := table{head: []string{"SUBSCRIPTION", "TIER", "STATUS", "PERIOD ENDS", "CANCELLED THEN", "NEXT TIER"}}
				for _, s := range d.Subscriptions {
					subscriptions.rows = append(subscriptions.rows, []string{
						s.ID, s.Tier, string(s.Status), when(s.PeriodEnd), yes(s.CancelAtPeriodEnd), or(s.PendingTier, "-"),
					})
				}
				return a.show(cmd, d, appendTable(tables, subscriptions)...)
			})
		},
	})
}

// appendTable leaves empty tables out.
func appendTable(tables []table, t table) []table {
	if len(t.rows) == 0 {
		return tables
	}
	return append(tables, t)
}

func (a *app) customerSuspendCommand() *cobra.Command {
	return a.customerStatusCommand(calls("suspendCustomer", &cobra.Command{
		Use:   "suspend CUSTOMER_ID",
		Short: "Refuse a customer's requests until resumed",
		Long: `suspend makes every proxy refuse the customer's tokens with 403 within a second, and
cuts their streams in flight; what those got is billed. The tokens stay: "customer
resume" makes them valid again.`,
		Example: `  openclawctl customer suspend c4mzq7n2k5w3xj6ha --reason "three failed payments"`,
	}), backend.suspend)
}

func (a *app) customerResumeCommand() *cobra.Command {
	return a.customerStatusCommand(calls("resumeCustomer", &cobra.Command{
		Use:     "resume CUSTOMER_ID",
		Short:   "Serve a suspended customer again",
		Long:    `resume undoes "customer suspend". Tokens that were revoked stay revoked.`,
		Example: `  openclawctl customer resume c4mzq7n2k5w3xj6ha --reason paid`,
	}), backend.resume)
}

// customerStatusCommand completes cmd so that it changes a customer's status by set.
func (a *app) customerStatusCommand(cmd *cobra.Command, set func(b backend, ctx context.Context, id, reason string) (control.Customer, error)) *cobra.Command {
	var reason string
	cmd.Args = cobra.ExactArgs(1)
	cmd.ValidArgsFunction = a.customerIDs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.on(cmd, func(ctx context.Context, b backend) error {
			c, err := set(b, ctx, args[0], reason)
			return a.showDone(cmd, err, c, table{
				head: []string{"CUSTOMER", "NAME", "STATUS"},
				rows: [][]string{{c.ID, c.Name, string(c.Status)}},
			})
		})
	}
	reasonFlag(cmd, &reason)
	return cmd
}

// reasonFlag is the flag of what the api wants to know and the databases do not ask for.
func reasonFlag(cmd *cobra.Command, reason *string) {
	cmd.Flags().StringVar(reason, "reason", "", "why, for the audit log (required by the api)")
	complete(cmd, "reason", fixed())
}

// showDone shows what a change led to, also if the proxies do not know of it yet.
func (a *app) showDone(cmd *cobra.Command, err error, data any, tables ...table) error {
	if err != nil && !holds(err) {
		return err
	}
	return errors.Join(a.show(cmd, data, tables...), err)
}

func (a *app) customerDeleteCommand() *cobra.Command {
	var sure bool
	cmd := calls("deleteCustomer", &cobra.Command{
		Use:   "delete CUSTOMER_ID --yes",
		Short: "Delete a customer for ever",
		Long: `delete revokes the customer's tokens and removes its personal data. There is no way
back. A live subscription is ended at once, with a last invoice of what was used above the limit.
It is for admins.

Usage, what was billed and the audit log stay, without a name; the audit log has the network
addresses that actions came from. Stripe's notices, which may hold name and e-mail address, stay
for 90 days. Stripe keeps its customer: delete that one in Stripe's dashboard.`,
		Example:           `  openclawctl customer delete c4mzq7n2k5w3xj6ha --yes`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.customerIDs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !sure {
				return usageError{errors.New("this cannot be undone: say --yes")}
			}
			return a.api(cmd, func(ctx context.Context, c *client.Client) error {
				r := &remote{c: c, stderr: cmd.ErrOrStderr()}
				err := r.change(ctx, client.Request{
					Method: http.MethodDelete, Path: client.Path("v1", "customers", args[0]), What: "customer " + args[0],
				}, nil)
				return a.showDone(cmd, err, struct {
					Deleted string `json:"deleted"`
				}{args[0]}, table{head: []string{"DELETED"}, rows: [][]string{{args[0]}}})
			})
		},
	})
	cmd.Flags().BoolVar(&sure, "yes", false, "really")
	return cmd
}
