package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
)

// How many rows a list shows, and how long verify waits, unless told otherwise.
const (
	defaultRows = 100
	defaultWait = 3 * time.Second
)

func checkLimit(n int) error {
	if n < 1 || n > maxRows {
		return usageError{fmt.Errorf("--limit must be in 1…%d", maxRows)}
	}
	return nil
}

// nonNil makes an empty list [] in JSON.
func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (a *app) deadLettersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "deadletters",
		Short: "List, show, replay and drop what could not be recorded",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(a.deadListCommand(), a.deadShowCommand(), a.deadReplayCommand(), a.deadDropCommand())
	return cmd
}

func (a *app) deadListCommand() *cobra.Command {
	var all bool
	var limit int
	cmd := calls("listDeadLetters", &cobra.Command{
		Use:   "list",
		Short: "List what is parked, newest first",
		Long: `list shows what came on the usage stream and could not be recorded, newest first: one
event each or, with INDEX -1, a whole entry. EVENT is the replica and the number of the
event, where they can be read.`,
		Example: `  openclawctl ledger deadletters list
  openclawctl ledger deadletters list --all --limit 1000 --output json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkLimit(limit); err != nil {
				return err
			}
			return a.on(cmd, func(ctx context.Context, b backend) error {
				list, err := b.deadLetters(ctx, all, limit)
				if err != nil {
					return err
				}
				t := table{head: []string{"ID", "SEEN", "STREAM ID", "INDEX", "EVENT", "STATE", "REASON"}}
				for _, d := range list {
					t.rows = append(t.rows, []string{
						number(d.ID), when(d.SeenAt), d.StreamID, strconv.Itoa(d.Index), eventName(d), deadState(d), d.Reason,
					})
				}
				return a.show(cmd, nonNil(list), t)
			})
		},
	})
	cmd.Flags().BoolVar(&all, "all", false, "show those that were replayed or dropped too")
	cmd.Flags().IntVar(&limit, "limit", defaultRows, "how many to show")
	return cmd
}

func eventName(d control.DeadLetter) string {
	if d.Replica == "" {
		return "-"
	}
	return d.Replica + "-" + number(d.Seq)
}

func deadState(d control.DeadLetter) string {
	switch {
	case !d.ReplayedAt.IsZero():
		return "replayed"
	case !d.DroppedAt.IsZero():
		return "dropped"
	}
	return "waits"
}

func (a *app) deadShowCommand() *cobra.Command {
	return calls("getDeadLetter", &cobra.Command{
		Use:     "show ID",
		Short:   "Show one dead letter with its content",
		Long:    `show prints one dead letter with its content; in JSON, payload is base64 and text the same as text.`,
		Example: `  openclawctl ledger deadletters show 17`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := deadLetterIDs(args)
			if err != nil {
				return err
			}
			return a.on(cmd, func(ctx context.Context, b backend) error {
				d, err := b.deadLetter(ctx, ids[0])
				if err != nil {
					return err
				}
				text := strings.ToValidUTF8(string(d.Payload), "\uFFFD")
				data := struct {
					control.DeadLetter
					Text string `json:"text"`
				}{d, text}
				rows := [][]string{
					{"id", number(d.ID)}, {"seen", when(d.SeenAt)}, {"stream id", d.StreamID}, {"index", strconv.Itoa(d.Index)},
					{"event", eventName(d)}, {"state", deadState(d)}, {"reason", d.Reason}, {"payload", text},
				}
				return a.show(cmd, data, table{head: []string{"FIELD", "VALUE"}, rows: rows})
			})
		},
	})
}

func (a *app) deadReplayCommand() *cobra.Command {
	return calls("replayDeadLetter", &cobra.Command{
		Use:   "replay ID…",
		Short: "Try again to record dead letters",
		Long: `replay validates dead letters again and records them as if they had just come: each
event counts exactly once, also where it has been recorded meanwhile. What is refused
again stays parked, and the exit code is 1; the others are done. It is written to the
audit log.`,
		Example: `  openclawctl ledger deadletters replay 17 18 19`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := deadLetterIDs(args)
			if err != nil {
				return err
			}
			return a.on(cmd, func(ctx context.Context, b backend) error {
				type replayed struct {
					ID int64 `json:"id"`
					api.Replayed
				}
				done, t := []replayed{}, table{head: []string{"ID", "INSERTED", "DUPLICATES", "PARKED"}}
				var failed []error
				for _, id := range ids {
					r, err := b.replay(ctx, id)
					if err != nil {
						failed = append(failed, err)
						continue
					}
					done = append(done, replayed{id, r})
					t.rows = append(t.rows, []string{number(id), strconv.Itoa(r.Inserted), strconv.Itoa(r.Duplicates), strconv.Itoa(r.Parked)})
				}
				if len(done) > 0 {
					failed = append(failed, a.show(cmd, done, t))
				}
				return errors.Join(failed...)
			})
		},
	})
}

func (a *app) deadDropCommand() *cobra.Command {
	var reason string
	cmd := calls("dropDeadLetter", &cobra.Command{
		Use:   "drop ID… --reason TEXT",
		Short: "Give up dead letters for ever",
		Long: `drop marks dead letters as ones that will never be recorded: what they stand for is
not billed. They stay visible in "list --all", and who dropped them and why is in the
audit log. If one of them cannot be dropped, the exit code is 1; the others are.`,
		Example: `  openclawctl ledger deadletters drop 17 --reason "test traffic of a customer that never was"`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := deadLetterIDs(args)
			if err != nil {
				return err
			}
			return a.on(cmd, func(ctx context.Context, b backend) error {
				dropped, t := []int64{}, table{head: []string{"DROPPED"}}
				var failed []error
				for _, id := range ids {
					if err := b.drop(ctx, id, reason); err != nil {
						failed = append(failed, err)
						continue
					}
					dropped = append(dropped, id)
					t.rows = append(t.rows, []string{number(id)})
				}
				if len(dropped) > 0 {
					failed = append(failed, a.show(cmd, struct {
						Dropped []int64 `json:"dropped"`
					}{dropped}, t))
				}
				return errors.Join(failed...)
			})
		},
	})
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit log (required)")
	_ = cmd.MarkFlagRequired("reason") // fails only for a flag that is not there
	return cmd
}

func deadLetterIDs(args []string) ([]int64, error) {
	ids := make([]int64, len(args))
	for i, a := range args {
		id, err := strconv.ParseInt(a, 10, 64)
		if err != nil || id < 1 {
			return nil, usageError{fmt.Errorf("%q is not the id of a dead letter", a)}
		}
		ids[i] = id
	}
	return ids, nil
}
