package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
)

func (a *app) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Create, list and revoke proxy tokens", Args: cobra.NoArgs}
	cmd.AddCommand(a.tokenCreateCommand(), a.tokenListCommand(), a.tokenRevokeCommand())
	return cmd
}

func (a *app) tokenCreateCommand() *cobra.Command {
	var customer, box string
	cmd := &cobra.Command{
		Use:   "create --customer ID",
		Short: "Create a proxy token and print it, this once",
		Long: `create makes a proxy token for a box and prints it. Only its digest is kept: the
token itself cannot be shown again. The proxies accept it as soon as this returns.`,
		Example: `  openclawctl token create --customer c4mzq7n2k5w3xj6ha
  openclawctl token create --customer c4mzq7n2k5w3xj6ha --box b7k2mhc5wq3xj6n4z --output json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			hasher, err := a.hasher()
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, s *session) error {
				s.service.Hasher = hasher
				raw, token, err := s.service.CreateToken(ctx, a.actor, customer, box)
				if err != nil && !errors.Is(err, customers.ErrUnpublished) {
					return err
				}
				// It is valid and can never be shown again: print it whatever came after.
				data := struct {
					Token string `json:"token"`
					control.ProxyToken
				}{raw.Reveal(), token}
				return errors.Join(a.show(cmd, data, table{
					head: []string{"TOKEN", "ID", "CUSTOMER", "BOX"},
					rows: [][]string{{raw.Reveal(), token.ID, token.CustomerID, token.BoxID}},
				}), err)
			})
		},
	}
	cmd.Flags().StringVar(&customer, "customer", "", "the customer's id (required)")
	cmd.Flags().StringVar(&box, "box", "", "the box's id; not needed while the customer has one box")
	_ = cmd.MarkFlagRequired("customer") // fails only for a flag that is not there
	return cmd
}

func (a *app) tokenListCommand() *cobra.Command {
	var customer string
	cmd := &cobra.Command{
		Use:   "list --customer ID",
		Short: "List the proxy tokens of a customer, oldest first",
		Long: `list shows the proxy tokens of a customer by id; HINT is the last four characters
of the token.`,
		Example: `  openclawctl token list --customer c4mzq7n2k5w3xj6ha`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				if _, err := s.store.Customer(ctx, customer); err != nil {
					return err
				}
				list, err := s.store.Tokens(ctx, customer)
				if err != nil {
					return err
				}
				t := table{head: []string{"ID", "HINT", "BOX", "STATUS", "VERSION", "CREATED", "REVOKED"}}
				for _, k := range list {
					t.rows = append(t.rows, []string{
						k.ID, k.Hint, k.BoxID, string(k.Status), number(k.Version), when(k.CreatedAt), when(k.RevokedAt),
					})
				}
				return a.show(cmd, list, t)
			})
		},
	}
	cmd.Flags().StringVar(&customer, "customer", "", "the customer's id (required)")
	_ = cmd.MarkFlagRequired("customer") // fails only for a flag that is not there
	return cmd
}

func (a *app) tokenRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke TOKEN_ID",
		Short: "Revoke a proxy token for ever",
		Long: `revoke makes every proxy refuse a token within a second, and cuts its streams in
flight. It takes the token's id, never the token itself. There is no way back: create
another token instead.`,
		Example: `  openclawctl token revoke t7k2mhc5wq3xj6n4z`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				k, err := s.service.RevokeToken(ctx, a.actor, args[0])
				if err != nil {
					return err
				}
				return a.show(cmd, k, table{
					head: []string{"ID", "CUSTOMER", "STATUS", "REVOKED"},
					rows: [][]string{{k.ID, k.CustomerID, string(k.Status), when(k.RevokedAt)}},
				})
			})
		},
	}
}
