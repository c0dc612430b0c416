package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
)

func (a *app) customerCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "customer", Short: "Create, list, suspend and resume customers", Args: cobra.NoArgs}
	cmd.AddCommand(a.customerCreateCommand(), a.customerListCommand(), a.customerSuspendCommand(), a.customerResumeCommand())
	return cmd
}

func (a *app) customerCreateCommand() *cobra.Command {
	var n customers.NewCustomer
	cmd := &cobra.Command{
		Use:   "create --name NAME",
		Short: "Create a customer with a box and a first period",
		Long: `create makes a customer, its box (pending until it is provisioned) and its first
billing period: one month from now, with the tier's limit. It prints the ids that the
other commands want.`,
		Example: `  openclawctl customer create --name "Ada Lovelace" --tier starter --email ada@example.com
  openclawctl customer create --name Acme --tier team --output json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				c, err := s.service.CreateCustomer(ctx, a.actor, n)
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
	}
	cmd.Flags().StringVar(&n.Name, "name", "", "the customer's name (required)")
	cmd.Flags().StringVar(&n.Email, "email", "", "the customer's email address; no two customers may share one")
	cmd.Flags().StringVar(&n.Tier, "tier", "starter", "starter, pro or team")
	_ = cmd.MarkFlagRequired("name") // fails only for a flag that is not there
	return cmd
}

func (a *app) customerListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List all customers, oldest first",
		Example: `  openclawctl customer list --output json`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				list := []control.Customer{}
				for after := ""; ; after = list[len(list)-1].ID {
					page, err := s.store.Customers(ctx, after, pageSize)
					if err != nil {
						return err
					}
					list = append(list, page...)
					if len(page) < pageSize {
						break
					}
				}
				t := table{head: []string{"CUSTOMER", "NAME", "EMAIL", "TIER", "STATUS", "CREATED"}}
				for _, c := range list {
					t.rows = append(t.rows, []string{c.ID, c.Name, c.Email, c.Tier, string(c.Status), when(c.CreatedAt)})
				}
				return a.show(cmd, list, t)
			})
		},
	}
}

func (a *app) customerSuspendCommand() *cobra.Command {
	return a.customerStatusCommand(&cobra.Command{
		Use:   "suspend CUSTOMER_ID",
		Short: "Refuse a customer's requests until resumed",
		Long: `suspend makes every proxy refuse the customer's tokens with 403 within a second, and
cuts their streams in flight; what those got is billed. The tokens stay: "customer
resume" makes them valid again.`,
		Example: `  openclawctl customer suspend c4mzq7n2k5w3xj6ha --reason "three failed payments"`,
	}, (*customers.Service).SuspendCustomer)
}

func (a *app) customerResumeCommand() *cobra.Command {
	return a.customerStatusCommand(&cobra.Command{
		Use:     "resume CUSTOMER_ID",
		Short:   "Serve a suspended customer again",
		Long:    `resume undoes "customer suspend". Tokens that were revoked stay revoked.`,
		Example: `  openclawctl customer resume c4mzq7n2k5w3xj6ha`,
	}, (*customers.Service).ResumeCustomer)
}

// customerStatusCommand completes cmd so that it changes a customer's status by set.
func (a *app) customerStatusCommand(cmd *cobra.Command, set func(s *customers.Service, ctx context.Context, actor, id, reason string) (control.Customer, error)) *cobra.Command {
	var reason string
	cmd.Args = cobra.ExactArgs(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.with(cmd, func(ctx context.Context, s *session) error {
			c, err := set(s.service, ctx, a.actor, args[0], reason)
			if err != nil {
				return err
			}
			return a.show(cmd, c, table{
				head: []string{"CUSTOMER", "NAME", "STATUS"},
				rows: [][]string{{c.ID, c.Name, string(c.Status)}},
			})
		})
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit log")
	return cmd
}

// pageSize is how many rows are asked for at once.
const pageSize = 500
