package main

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

func (a *app) usageCommand() *cobra.Command {
	var customer string
	var events, periods int
	cmd := &cobra.Command{
		Use:   "usage --customer ID",
		Short: "Show what a customer used: totals per period, and recent requests",
		Long: `usage prints the totals of the newest periods, newest first, and the newest
requests. SETTLED is what is charged to the limit according to Postgres, REDIS the
same according to Redis, which is ahead by less than a second; PROMPT includes CACHED
and COMPLETION includes REASONING.`,
		Example: `  openclawctl usage --customer c4mzq7n2k5w3xj6ha
  openclawctl usage --customer c4mzq7n2k5w3xj6ha --events 100 --output json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if events < 0 || events > maxRows || periods < 1 || periods > maxRows {
				return usageError{errors.New("--events and --periods must be in 0…10000 and 1…10000")}
			}
			return a.with(cmd, func(ctx context.Context, s *session) error {
				return a.usage(ctx, cmd, s, customer, periods, events)
			})
		},
	}
	cmd.Flags().StringVar(&customer, "customer", "", "the customer's id (required)")
	cmd.Flags().IntVar(&events, "events", 10, "how many of the newest requests to show")
	cmd.Flags().IntVar(&periods, "periods", 3, "how many of the newest periods to show")
	_ = cmd.MarkFlagRequired("customer") // fails only for a flag that is not there
	return cmd
}

// maxRows keeps a slip of the finger from asking for everything.
const maxRows = 10_000

func (a *app) usage(ctx context.Context, cmd *cobra.Command, s *session, customer string, periods, events int) error {
	if _, err := s.store.Customer(ctx, customer); err != nil {
		return err
	}
	list, err := s.store.Periods(ctx, customer, periods)
	if err != nil {
		return err
	}
	recent, err := s.store.Events(ctx, customer, events)
	if err != nil {
		return err
	}
	data := struct {
		Periods []livePeriod     `json:"periods"`
		Events  []contract.Event `json:"events"`
	}{[]livePeriod{}, recent}
	totals := table{head: []string{
		"PERIOD", "ENDS", "REQUESTS", "PROMPT", "CACHED", "COMPLETION", "REASONING", "SETTLED", "REDIS", "UNBILLED", "LIMIT",
	}}
	for _, p := range list {
		l := s.live(ctx, cmd, p)
		data.Periods = append(data.Periods, l)
		settled, _ := l.Live.columns()
		t := p.Totals
		totals.rows = append(totals.rows, []string{
			p.ID, when(p.End), number(t.Requests), number(t.Prompt), number(t.Cached), number(t.Completion),
			number(t.Reasoning), number(t.Settled), settled, number(t.Unbilled), number(p.LimitTokens),
		})
	}
	tables := []table{totals}
	if len(recent) > 0 {
		t := table{head: []string{
			"ADMITTED", "REQUEST", "MODEL", "FACE", "PROMPT", "COMPLETION", "SETTLED", "BASIS", "OUTCOME", "STATUS", "SECONDS",
		}}
		for _, e := range recent {
			t.rows = append(t.rows, []string{
				when(e.AdmittedAt), e.RequestID, e.ModelServed, string(e.Face), number(e.Prompt), number(e.Completion),
				number(e.Settled), string(e.Basis), string(e.Outcome), strconv.Itoa(e.Status),
				strconv.FormatFloat((time.Duration(e.DurationMicros) * time.Microsecond).Seconds(), 'f', 3, 64),
			})
		}
		tables = append(tables, t)
	}
	return a.show(cmd, data, tables...)
}
