package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/client"
)

// completer offers what a flag or an argument may be.
type completer = cobra.CompletionFunc

// complete has the shell offer values of a flag.
func complete(cmd *cobra.Command, flag string, c completer) {
	_ = cmd.RegisterFlagCompletionFunc(flag, c) // fails only for a flag that is not there
}

// fixed offers the same values always. Files are never offered.
func fixed(values ...string) completer {
	return func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return values, cobra.ShellCompDirectiveNoFileComp
	}
}

const (
	// completeWithin is for how long a shell waits for what is offered.
	completeWithin = 2 * time.Second
	// offered is how many ids are offered at most.
	offered = 200
)

// offer asks the api. Who is not signed in, or works on the databases, is offered nothing:
// completing must neither ask for a password nor print errors.
func offer[T any](a *app, path string, one func(T) cobra.Completion) ([]cobra.Completion, cobra.ShellCompDirective) {
	c, err := a.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), completeWithin)
	defer cancel()
	items, err := client.Every[T](ctx, c, path, nil, offered)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	out := make([]cobra.Completion, len(items))
	for i, v := range items {
		out[i] = one(v)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) customerIDs(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return offer(a, "/v1/customers", func(c control.Customer) cobra.Completion {
		return cobra.CompletionWithDesc(c.ID, printable(c.Name)+", "+string(c.Status))
	})
}

func (a *app) boxIDs(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return offer(a, "/v1/boxes", func(b control.Box) cobra.Completion {
		return cobra.CompletionWithDesc(b.ID, "of "+b.CustomerID+", "+string(b.State))
	})
}

func (a *app) tierNames(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return offer(a, "/v1/tiers", func(t api.TierView) cobra.Completion { return cobra.CompletionWithDesc(t.Name, t.Title) })
}

func (a *app) tokenIDs(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return offer(a, "/v1/tokens", func(k control.ProxyToken) cobra.Completion {
		return cobra.CompletionWithDesc(k.ID, "of "+k.CustomerID+", "+string(k.Status))
	})
}
