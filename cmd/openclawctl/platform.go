package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/client"
)

func (a *app) auditCommand() *cobra.Command {
	return listCommand(a, list[control.AuditEntry]{
		operation: "listAudit", path: "/v1/audit", ofCustomer: true,
		rows: func(entries []control.AuditEntry) table {
			t := table{head: []string{"ID", "AT", "ACTOR", "ACTION", "TARGET", "CUSTOMER", "DETAIL"}}
			for _, e := range entries {
				detail := ""
				if len(e.Detail) > 0 {
					b, _ := json.Marshal(e.Detail) // it came as JSON
					detail = string(b)
				}
				t.rows = append(t.rows, []string{number(e.ID), when(e.At), e.Actor, e.Action, e.Target, or(e.CustomerID, "-"), detail})
			}
			return t
		},
		cmd: &cobra.Command{
			Use:   "audit",
			Short: "Show who changed what, newest first",
			Long:  `audit prints the audit log: every change, who made it, and why.`,
			Example: `  openclawctl audit --limit 20
  openclawctl audit --customer c4mzq7n2k5w3xj6ha --output json`,
		},
	})
}

// jobStates are River's.
func jobStates() []string {
	return []string{"available", "cancelled", "completed", "discarded", "pending", "retryable", "running", "scheduled"}
}

func (a *app) jobCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "job", Short: "List, retry and cancel jobs of the control plane", Args: cobra.NoArgs}
	var state string
	jobs := listCommand(a, list[control.Job]{
		operation: "listJobs", path: "/v1/jobs",
		query: func(q url.Values) error {
			if state != "" {
				q.Set("state", state)
			}
			return oneOf("state", state, append(jobStates(), "")...)
		},
		rows: func(jobs []control.Job) table {
			t := table{head: []string{"ID", "KIND", "STATE", "ATTEMPT", "CREATED", "SCHEDULED", "FINISHED", "ERROR"}}
			for _, j := range jobs {
				t.rows = append(t.rows, []string{
					number(j.ID), j.Kind, j.State, fmt.Sprintf("%d of %d", j.Attempt, j.MaxAttempts), when(j.CreatedAt), when(j.ScheduledAt), when(j.FinishedAt), j.Error,
				})
			}
			return t
		},
		cmd: &cobra.Command{
			Use:     "list",
			Short:   "List jobs, newest first",
			Example: `  openclawctl job list --state retryable`,
		},
	})
	jobs.Flags().StringVar(&state, "state", "", "only those that are "+strings.Join(jobStates(), ", "))
	complete(jobs, "state", fixed(jobStates()...))
	cmd.AddCommand(jobs,
		a.jobActionCommand("retry", "retryJob", "Have a job worked again now", `retry has a job worked at once, also one that was given up.`),
		a.jobActionCommand("cancel", "cancelJob", "Have a job not worked any more", `cancel gives a job up. One that runs is told to stop. One that revokes a token cannot be cancelled.`))
	return cmd
}

func (a *app) jobActionCommand(action, operation, short, long string) *cobra.Command {
	return calls(operation, &cobra.Command{
		Use: action + " JOB_ID", Short: short, Long: long,
		Example: "  openclawctl job " + action + " 17",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil || id < 1 {
				return usageError{fmt.Errorf("%q is not the id of a job", args[0])}
			}
			return a.post(cmd, "job "+args[0], client.Path("v1", "jobs", args[0], action), nil)
		},
	})
}

// post sends what is answered with nothing, and says what it was done to.
func (a *app) post(cmd *cobra.Command, what, path string, body any) error {
	return a.api(cmd, func(ctx context.Context, c *client.Client) error {
		r := &remote{c: c, key: a.key, stderr: cmd.ErrOrStderr()}
		err := r.change(ctx, client.Request{Method: http.MethodPost, Path: path, Body: body, What: what}, nil)
		return a.showDone(cmd, err, struct {
			Done string `json:"done"`
		}{what}, table{head: []string{"DONE"}, rows: [][]string{{what}}})
	})
}

func roles() []string {
	return []string{string(control.RoleSupport), string(control.RoleOperator), string(control.RoleAdmin)}
}

func operatorTable(operators []control.Operator) table {
	t := table{head: []string{"OPERATOR", "EMAIL", "ROLE", "CREATED", "DISABLED"}}
	for _, o := range operators {
		t.rows = append(t.rows, []string{o.ID, o.Email, string(o.Role), when(o.CreatedAt), when(o.DisabledAt)})
	}
	return t
}

func (a *app) operatorCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "operator", Short: "List, create and disable operators", Args: cobra.NoArgs}
	cmd.AddCommand(listCommand(a, list[control.Operator]{
		operation: "listOperators", path: "/v1/operators", whole: true, rows: operatorTable,
		cmd: &cobra.Command{
			Use:     "list",
			Short:   "List operators, oldest first",
			Example: `  openclawctl operator list`,
		},
	}), a.operatorCreateCommand(), a.operatorDisableCommand())
	return cmd
}

func (a *app) operatorCreateCommand() *cobra.Command {
	var in api.NewOperator
	var role, file string
	cmd := calls("createOperator", &cobra.Command{
		Use:   "create --email ADDRESS",
		Short: "Create an operator",
		Long: `create makes an operator. Support looks; operators change what can be changed back; admins also
what cannot. The password is asked for, or read from --password-file or the first line of the
standard input.

The first operator is made by "control add-operator", when nobody can sign in yet.`,
		Example: `  openclawctl operator create --email grace@example.com --role support`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("role", role, roles()...); err != nil {
				return err
			}
			in.Role = control.Role(role)
			return a.api(cmd, func(ctx context.Context, c *client.Client) error {
				var err error
				if in.Password, err = askPassword(cmd, "Password of "+in.Email, file); err != nil {
					return err
				}
				var o control.Operator
				r := &remote{c: c, key: a.key, stderr: cmd.ErrOrStderr()}
				if err := r.change(ctx, client.Request{Method: http.MethodPost, Path: "/v1/operators", Body: in}, &o); err != nil {
					return err
				}
				return a.show(cmd, o, operatorTable([]control.Operator{o}))
			})
		},
	})
	cmd.Flags().StringVar(&in.Email, "email", "", "the operator's e-mail address (required)")
	cmd.Flags().StringVar(&role, "role", string(control.RoleOperator), strings.Join(roles(), ", "))
	cmd.Flags().StringVar(&file, "password-file", "", "file whose first line is the password")
	complete(cmd, "role", fixed(roles()...))
	_ = cmd.MarkFlagRequired("email") // fails only for a flag that is not there
	return cmd
}

func (a *app) operatorDisableCommand() *cobra.Command {
	var sure bool
	cmd := calls("disableOperator", &cobra.Command{
		Use:     "disable OPERATOR_ID --yes",
		Short:   "Keep an operator out for good",
		Long:    `disable ends an operator's sessions, and lets it not sign in again. There is no way back.`,
		Example: `  openclawctl operator disable o4mzq7n2k5w3xj6ha --yes`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !sure {
				return usageError{errors.New("this cannot be undone: say --yes")}
			}
			return a.api(cmd, func(ctx context.Context, c *client.Client) error {
				r := &remote{c: c, stderr: cmd.ErrOrStderr()}
				err := r.change(ctx, client.Request{Method: http.MethodDelete, Path: client.Path("v1", "operators", args[0]), What: "operator " + args[0]}, nil)
				return a.showDone(cmd, err, struct {
					Disabled string `json:"disabled"`
				}{args[0]}, table{head: []string{"DISABLED"}, rows: [][]string{{args[0]}}})
			})
		},
	})
	cmd.Flags().BoolVar(&sure, "yes", false, "really")
	return cmd
}

func (a *app) billingEventsCommand() *cobra.Command {
	return listCommand(a, list[control.StripeEvent]{
		operation: "listStripeEvents", path: "/v1/stripe-events",
		rows: func(events []control.StripeEvent) table {
			t := table{head: []string{"EVENT", "TYPE", "VERSION", "CREATED", "RECEIVED", "PROCESSED", "ATTEMPTS", "ERROR"}}
			for _, e := range events {
				t.rows = append(t.rows, []string{
					e.ID, e.Type, e.APIVersion, when(e.CreatedAt), when(e.ReceivedAt), when(e.ProcessedAt), strconv.Itoa(e.Attempts), e.Error,
				})
			}
			return t
		},
		cmd: &cobra.Command{
			Use:     "events",
			Short:   "List what Stripe sent, newest first",
			Long:    `events prints the inbox of Stripe's events, without their content, which names people.`,
			Example: `  openclawctl billing events --limit 20`,
		},
	})
}

func (a *app) billingRetryCommand() *cobra.Command {
	var again bool
	cmd := calls("retryStripeEvent", &cobra.Command{
		Use:   "retry EVENT_ID",
		Short: "Process an event of Stripe's now",
		Long: `retry has an event processed that failed, without waiting for its next attempt. With --again also
one that was processed: what is right it does not change, because what counts is what Stripe says
when it is asked.`,
		Example: `  openclawctl billing retry evt_1NG8Du2eZvKYlo2CUI79vXWy`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.post(cmd, "event "+args[0], client.Path("v1", "stripe-events", args[0], "retry"), api.Again{Again: again})
		},
	})
	cmd.Flags().BoolVar(&again, "again", false, "also if it was processed")
	return cmd
}
