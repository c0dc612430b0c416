package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/client"
)

// operationKey annotates a command with the operations of the api that it calls.
const operationKey = "operations"

// calls notes which operations of the operators' api a command calls, separated by spaces, for
// its help. A test sees that it does.
func calls(operations string, cmd *cobra.Command) *cobra.Command {
	cmd.Annotations = map[string]string{operationKey: operations}
	return cmd
}

// finish completes all commands below cmd: those that call the api name the operations in
// their help, and those that only have others below them refuse a name that none of them has,
// which cobra would answer with help and success.
func finish(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		finish(c)
	}
	if cmd.HasSubCommands() && cmd.HasParent() {
		cmd.Args, cmd.DisableFlagsInUseLine = cobra.ArbitraryArgs, true
		cmd.RunE, cmd.SuggestionsMinimumDistance = unknown, 2
		return
	}
	operations := strings.Fields(cmd.Annotations[operationKey])
	if len(operations) == 0 {
		return
	}
	if cmd.Long == "" {
		cmd.Long = cmd.Short + "."
	}
	cmd.Long += "\n\nOf the api it calls: " + strings.Join(operations, ", ") + ` (see "openclawctl openapi").`
}

// unknown is what a command does that only has others below it.
func unknown(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	text := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		text += "; did you mean " + strings.Join(like, " or ") + "?"
	}
	return usageError{errors.New(text)}
}

// customerFlag adds --customer, which is required.
func (a *app) customerFlag(cmd *cobra.Command, customer *string) {
	cmd.Flags().StringVar(customer, "customer", "", "the customer's id (required)")
	_ = cmd.MarkFlagRequired("customer") // fails only for a flag that is not there
	complete(cmd, "customer", a.customerIDs)
}

// oneOf checks the value of a flag.
func oneOf(flag, value string, choices ...string) error {
	if slices.Contains(choices, value) {
		return nil
	}
	choices = slices.DeleteFunc(slices.Clone(choices), func(s string) bool { return s == "" })
	return usageError{fmt.Errorf("--%s %q: there are %s", flag, value, strings.Join(choices, ", "))}
}

// list is a command that shows a list of the api.
type list[T any] struct {
	operation, path string
	ofCustomer      bool // has --customer
	whole           bool // comes in one piece, without pages
	// query adds what other flags say; may be nil.
	query func(url.Values) error
	rows  func([]T) table
	cmd   *cobra.Command // with what says what it is
}

func listCommand[T any](a *app, l list[T]) *cobra.Command {
	cmd := calls(l.operation, l.cmd)
	var customer string
	var limit int
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		query := url.Values{}
		if customer != "" {
			query.Set("customer", customer)
		}
		if l.query != nil {
			if err := l.query(query); err != nil {
				return err
			}
		}
		if !l.whole {
			if err := checkLimit(limit); err != nil {
				return err
			}
		}
		return a.api(cmd, func(ctx context.Context, c *client.Client) error {
			var items []T
			var err error
			if l.whole {
				var page api.List[T]
				page, err = get[api.List[T]](ctx, c, "", l.path, query)
				items = page.Items
			} else {
				items, err = client.Every[T](ctx, c, l.path, query, limit)
			}
			if err != nil {
				return err
			}
			return a.show(cmd, nonNil(items), l.rows(items))
		})
	}
	if l.ofCustomer {
		cmd.Flags().StringVar(&customer, "customer", "", "only this customer's")
		complete(cmd, "customer", a.customerIDs)
	}
	if !l.whole {
		cmd.Flags().IntVar(&limit, "limit", defaultRows, "how many to show")
	}
	return cmd
}
