package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/client"
)

func (a *app) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Create, list, rotate and revoke proxy tokens", Args: cobra.NoArgs}
	cmd.AddCommand(a.tokenCreateCommand(), a.tokenListCommand(), a.tokenRotateCommand(), a.tokenRevokeCommand())
	return cmd
}

func (a *app) tokenCreateCommand() *cobra.Command {
	var customer, box string
	cmd := calls("createToken", &cobra.Command{
		Use:   "create --customer ID",
		Short: "Create a proxy token and print it, this once",
		Long: `create makes a proxy token for a box and prints it. Only its digest is kept: the
token itself cannot be shown again. The proxies accept it as soon as this returns. Of a box
that the operator has made, it ends all tokens but the one that it has given it.`,
		Example: `  openclawctl token create --customer c4mzq7n2k5w3xj6ha
  openclawctl token create --customer c4mzq7n2k5w3xj6ha --box b7k2mhc5wq3xj6n4z --output json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.on(cmd, func(ctx context.Context, b backend) error {
				k, err := b.createToken(ctx, customer, box)
				// It is valid and can never be shown again: print it whatever came after.
				return a.showToken(cmd, err, k, k.ID, k.Token, table{
					head: []string{"TOKEN", "ID", "CUSTOMER", "BOX"},
					rows: [][]string{{or(k.Token, "-"), k.ID, k.CustomerID, k.BoxID}},
				})
			})
		},
	})
	a.customerFlag(cmd, &customer)
	cmd.Flags().StringVar(&box, "box", "", "the box's id; not needed while the customer has one box")
	complete(cmd, "box", a.boxIDs)
	return cmd
}

// showToken is showDone for a new token. One that an earlier attempt made cannot be shown.
func (a *app) showToken(cmd *cobra.Command, err error, data any, id, raw string, t table) error {
	if raw == "" && (err == nil || holds(err)) {
		err = fmt.Errorf(`token %s was made by an earlier attempt, and cannot be shown again: revoke it, and create another`, id)
		return errors.Join(a.show(cmd, data, t), err)
	}
	return a.showDone(cmd, err, data, t)
}

func tokenTable(list []control.ProxyToken) table {
	t := table{head: []string{"ID", "HINT", "BOX", "STATUS", "VERSION", "CREATED", "REVOKED"}}
	for _, k := range list {
		t.rows = append(t.rows, []string{
			k.ID, k.Hint, k.BoxID, string(k.Status), number(k.Version), when(k.CreatedAt), when(k.RevokedAt),
		})
	}
	return t
}

func (a *app) tokenListCommand() *cobra.Command {
	var customer string
	cmd := calls("listTokens", &cobra.Command{
		Use:   "list --customer ID",
		Short: "List the proxy tokens of a customer, oldest first",
		Long: `list shows the proxy tokens of a customer by id; HINT is the last four characters
of the token.`,
		Example: `  openclawctl token list --customer c4mzq7n2k5w3xj6ha`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.on(cmd, func(ctx context.Context, b backend) error {
				list, err := b.tokens(ctx, customer)
				if err != nil {
					return err
				}
				return a.show(cmd, list, tokenTable(list))
			})
		},
	})
	a.customerFlag(cmd, &customer)
	return cmd
}

func (a *app) tokenRotateCommand() *cobra.Command {
	var overlap time.Duration
	cmd := calls("rotateToken", &cobra.Command{
		Use:   "rotate TOKEN_ID",
		Short: "Replace a proxy token by a new one, and print that, this once",
		Long: `rotate makes a new token for the box of another one. Both are good for the overlap, a week
at most; then the old one is revoked. Without an overlap it is revoked at once.`,
		Example:           `  openclawctl token rotate t7k2mhc5wq3xj6n4z --overlap 1h`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.tokenIDs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if overlap < 0 || overlap%time.Second != 0 {
				return usageError{errors.New("--overlap must be whole seconds, and not negative")}
			}
			return a.api(cmd, func(ctx context.Context, c *client.Client) error {
				r := &remote{c: c, key: a.key, stderr: cmd.ErrOrStderr()}
				k, err := r.rotateToken(ctx, args[0], overlap)
				return a.showToken(cmd, err, k, k.ID, k.Token, table{
					head: []string{"TOKEN", "ID", "CUSTOMER", "BOX", "REPLACES", "WHICH ENDS"},
					rows: [][]string{{or(k.Token, "-"), k.ID, k.CustomerID, k.BoxID, k.Replaced, when(k.RevokedAfter)}},
				})
			})
		},
	})
	cmd.Flags().DurationVar(&overlap, "overlap", 0, "for how long the old token stays good, such as 1h")
	return cmd
}

func (a *app) tokenRevokeCommand() *cobra.Command {
	return calls("revokeToken", &cobra.Command{
		Use:   "revoke TOKEN_ID",
		Short: "Revoke a proxy token for ever",
		Long: `revoke makes every proxy refuse a token within a second, and cuts its streams in
flight. It takes the token's id, never the token itself. There is no way back: create
another token instead.`,
		Example:           `  openclawctl token revoke t7k2mhc5wq3xj6n4z`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.tokenIDs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.on(cmd, func(ctx context.Context, b backend) error {
				k, err := b.revokeToken(ctx, args[0])
				return a.showDone(cmd, err, k, table{
					head: []string{"ID", "CUSTOMER", "STATUS", "REVOKED"},
					rows: [][]string{{k.ID, k.CustomerID, string(k.Status), when(k.RevokedAt)}},
				})
			})
		},
	})
}

func (a *app) tierCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "tier", Short: "List what customers can buy", Args: cobra.NoArgs}
	cmd.AddCommand(listCommand(a, list[api.TierView]{
		operation: "listTiers", path: "/v1/tiers", whole: true,
		rows: func(tiers []api.TierView) table {
			t := table{head: []string{"TIER", "PRICE", "TOKENS", "OVERAGE PER MILLION", "RATE", "BURST", "CONCURRENT", "THINKING", "TELEGRAM USERS"}}
			for _, v := range tiers {
				t.rows = append(t.rows, []string{
					v.Name, dollars(v.PriceCents), number(v.MonthlyTokens), dollars(v.OverageCentsPerMillion),
					fmt.Sprintf("%g/s", v.RequestsPerSecond), number(int64(v.Burst)), number(int64(v.Concurrent)), v.Thinking, number(int64(v.TelegramUsers)),
				})
			}
			return t
		},
		cmd: &cobra.Command{
			Use:     "list",
			Short:   "List tiers with their prices and limits",
			Example: `  openclawctl tier list`,
		},
	}))
	return cmd
}

func dollars(cents int64) string { return fmt.Sprintf("$%d.%02d", cents/100, cents%100) }
