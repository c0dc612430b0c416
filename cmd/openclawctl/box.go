package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/client"
)

func (a *app) boxCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "box", Short: "See and change boxes: the OpenClaw gateways of customers", Args: cobra.NoArgs}
	cmd.AddCommand(a.boxListCommand(), a.boxCreateCommand(), a.boxShowCommand(), a.boxLogsCommand(), a.boxEventsCommand(), a.boxDestroyCommand(), a.boxResizeCommand(),
		a.boxChangeCommand("restart", calls("restartBox getBox", &cobra.Command{
			Short: "Start a box's gateway anew",
			Long:  `restart has a box's gateway stop and start anew, as after a change of its settings.`,
		})),
		a.boxChangeCommand("suspend", calls("suspendBox getBox", &cobra.Command{
			Short: "Stop a box, and keep all that it has",
			Long: `suspend has a box's gateway stop. All that the box has is kept, and no payment wakes it: only
"box resume" does. Its customer is served otherwise: see "customer suspend".`,
		})),
		a.boxChangeCommand("resume", calls("resumeBox getBox", &cobra.Command{
			Short: "Have a suspended box run again",
			Long: `resume undoes "box suspend". A box whose customer is suspended or has not paid stays stopped
until that is otherwise.`,
		})),
		a.boxChangeCommand("rotate-token", calls("rotateBoxToken getBox", &cobra.Command{
			Short: "Give a box a new proxy token",
			Long: `rotate-token has a box get a new proxy token. Both are good until the new one is in use, and for
a while after that; then the old one is revoked. Nobody sees the new one.`,
		})))
	return cmd
}

// boxStates are those of boxes.
func boxStates() []string {
	return []string{
		string(control.BoxPending), string(control.BoxProvisioning), string(control.BoxActive), string(control.BoxUpdating), string(control.BoxSuspended),
		string(control.BoxUnhealthy), string(control.BoxFailed), string(control.BoxDestroying), string(control.BoxDestroyed),
	}
}

func (a *app) boxListCommand() *cobra.Command {
	var state string
	cmd := listCommand(a, list[control.Box]{
		operation: "listBoxes", path: "/v1/boxes", ofCustomer: true, rows: boxTable,
		query: func(q url.Values) error {
			if state != "" {
				q.Set("state", state)
			}
			return oneOf("state", state, append(boxStates(), "")...)
		},
		cmd: &cobra.Command{
			Use:   "list",
			Short: "List boxes, oldest first",
			Example: `  openclawctl box list --customer c4mzq7n2k5w3xj6ha
  openclawctl box list --state failed`,
		},
	})
	cmd.Flags().StringVar(&state, "state", "", "only those that are "+strings.Join(boxStates(), ", "))
	complete(cmd, "state", fixed(boxStates()...))
	return cmd
}

func boxTable(boxes []control.Box) table {
	t := table{head: []string{"BOX", "CUSTOMER", "NAMESPACE", "STATE", "WANTS", "GENERATION", "SINCE", "MESSAGE"}}
	for _, b := range boxes {
		t.rows = append(t.rows, []string{b.ID, b.CustomerID, b.Namespace, string(b.State), string(b.Wants), generations(b), when(b.ChangedAt), or(b.Message, "-")})
	}
	return t
}

// generations shows how far the operator of the boxes is: "2" or "1 of 2".
func generations(b control.Box) string {
	if b.Observed == b.Generation {
		return number(b.Generation)
	}
	return number(b.Observed) + " of " + number(b.Generation)
}

func (a *app) boxShowCommand() *cobra.Command {
	return calls("getBox", &cobra.Command{
		Use:   "show BOX_ID",
		Short: "Show a box with its settings and what is done to it",
		Long: `show prints what a box shall be and what it is, its settings without secrets, and the steps of what
was done to it last, with their times. The message is what its customer reads; the detail, and the errors
of steps, may name what of the cluster is behind it, and are for operators.`,
		Example:           `  openclawctl box show b7k2mhc5wq3xj6n4z`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.oneBoxID,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.api(cmd, func(ctx context.Context, c *client.Client) error {
				d, err := getBox(ctx, c, args[0])
				if err != nil {
					return err
				}
				return a.showBox(cmd, d)
			})
		},
	})
}

func getBox(ctx context.Context, c *client.Client, id string) (api.OperatorsBox, error) {
	return get[api.OperatorsBox](ctx, c, "box "+id, client.Path("v1", "boxes", id), nil)
}

func (a *app) showBox(cmd *cobra.Command, d api.OperatorsBox) error {
	users := make([]string, len(d.Settings.TelegramUsers))
	for i, id := range d.Settings.TelegramUsers {
		users[i] = number(id)
	}
	wants := string(d.Wants)
	if d.Held {
		wants += ", by an operator"
	}
	fields := table{head: []string{"FIELD", "VALUE"}, rows: [][]string{
		{"box", d.ID}, {"customer", d.CustomerID}, {"namespace", d.Namespace}, {"state", string(d.State) + ", since " + when(d.ChangedAt)},
		{"wants", wants}, {"generation", generations(d.Box)}, {"message", or(d.Message, "-")}, {"detail", or(d.Detail, "-")}, {"waits for", or(d.WaitsFor, "-")}, {"created", when(d.CreatedAt)},
		{"size", or(d.Size, "of the customer's tier")}, {"language", or(string(d.Settings.Language), "the customer's")},
		{"time zone", or(d.Settings.TimeZone, "UTC")}, {"thinking", or(d.Settings.Thinking, "the tier's")},
		{"system prompt", fmt.Sprintf("%d characters", d.SystemPromptLength)},
		{"telegram bot", yes(d.HasTelegramToken)}, {"telegram users", or(strings.Join(users, ", "), number(int64(d.TelegramUserCount)))},
		{"rotations", number(d.Rotation)}, {"restarts", number(d.Restart)},
	}}
	steps := table{head: []string{"STEP", "GENERATION", "STARTED", "TOOK", "ERROR"}}
	for _, s := range d.Steps {
		steps.rows = append(steps.rows, []string{s.Name, number(s.Generation), when(s.StartedAt), took(s.BoxStep), or(s.Detail, or(s.Error, "-"))})
	}
	return a.show(cmd, d, appendTable([]table{fields}, steps)...)
}

// took is how long a step took, or that it goes on.
func took(s control.BoxStep) string {
	if s.FinishedAt.IsZero() {
		return "goes on"
	}
	return s.FinishedAt.Sub(s.StartedAt).Round(time.Millisecond).String()
}

// oneBoxID offers the one box that a command is about.
func (a *app) oneBoxID(cmd *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.boxIDs(cmd, args, prefix)
}

func (a *app) boxLogsCommand() *cobra.Command {
	var tail int
	var follow bool
	cmd := calls("getBoxLogs", &cobra.Command{
		Use:   "logs BOX_ID",
		Short: "Print what a box's gateway wrote",
		Long: `logs prints the last lines that a box's gateway wrote, and with --follow those to come, for an hour at
most. They may hold what customers wrote.`,
		Example:           `  openclawctl box logs b7k2mhc5wq3xj6n4z --tail 50 --follow`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.oneBoxID,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.api(cmd, func(ctx context.Context, c *client.Client) error {
				logs, err := c.Stream(ctx, client.Request{
					Method: http.MethodGet, Path: client.Path("v1", "boxes", args[0], "logs"), What: "box " + args[0],
					Query: url.Values{"tail": {strconv.Itoa(tail)}, "follow": {strconv.FormatBool(follow)}},
				})
				if err != nil {
					return err
				}
				defer logs.Close()
				text := &printableText{w: cmd.OutOrStdout()}
				if _, err := io.Copy(text, logs); err != nil && ctx.Err() == nil {
					return fmt.Errorf("logs of box %s broke off: %w", args[0], err)
				}
				return text.end()
			})
		},
	})
	cmd.Flags().IntVar(&tail, "tail", 200, "how many lines")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what it writes from now on")
	return cmd
}

// printableText keeps what boxes write from moving the cursor, or from doing whatever else a
// terminal obeys. What of a character is cut off between two writes waits for the next.
type printableText struct {
	w    io.Writer
	rest []byte
}

func (p *printableText) Write(b []byte) (int, error) {
	text := append(p.rest, b...)
	out := make([]byte, 0, len(text))
	for len(text) > 0 && utf8.FullRune(text) {
		r, n := utf8.DecodeRune(text)
		if r == utf8.RuneError && n == 1 || unicode.IsControl(r) && r != '\n' && r != '\t' {
			r = '?'
		}
		out, text = utf8.AppendRune(out, r), text[n:]
	}
	p.rest = bytes.Clone(text)
	if _, err := p.w.Write(out); err != nil {
		return 0, err
	}
	return len(b), nil
}

// end writes what was left of a character that never came.
func (p *printableText) end() error {
	if len(p.rest) == 0 {
		return nil
	}
	_, err := io.WriteString(p.w, "?")
	return err
}

func (a *app) boxEventsCommand() *cobra.Command {
	return calls("listBoxEvents", &cobra.Command{
		Use:               "events BOX_ID",
		Short:             "List what Kubernetes tells about a box",
		Example:           `  openclawctl box events b7k2mhc5wq3xj6n4z`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.oneBoxID,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.api(cmd, func(ctx context.Context, c *client.Client) error {
				list, err := get[api.List[control.BoxEvent]](ctx, c, "box "+args[0], client.Path("v1", "boxes", args[0], "events"), nil)
				if err != nil {
					return err
				}
				t := table{head: []string{"TIME", "TYPE", "REASON", "OBJECT", "COUNT", "MESSAGE"}}
				for _, e := range list.Items {
					t.rows = append(t.rows, []string{when(e.Time), e.Type, e.Reason, e.Object, number(int64(e.Count)), e.Message})
				}
				return a.show(cmd, nonNil(list.Items), t)
			})
		},
	})
}

// waiting is how a command waits for the operator of the boxes.
type waiting struct {
	wait   bool
	within time.Duration
}

func (w *waiting) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.wait, "wait", false, "wait until it is done, and say how long that took")
	cmd.Flags().DurationVar(&w.within, "timeout", 2*time.Minute, "how long to wait with --wait")
}

// pollBoxEvery is how often a box that is waited for is looked at.
const pollBoxEvery = 500 * time.Millisecond

// settled reports whether the operator of the boxes is done with a generation of a box, and
// whether it came out as it was wanted.
func settled(b control.Box, generation int64) (done, well bool) {
	if b.Observed < generation {
		return false, false
	}
	switch b.State {
	case control.BoxActive:
		return b.Wants == control.BoxRun, true
	case control.BoxSuspended:
		return b.Wants == control.BoxSuspend, true
	case control.BoxDestroyed:
		return true, b.Wants == control.BoxDestroy
	case control.BoxFailed, control.BoxUnhealthy, control.BoxPending: // which waits for its customer
		return true, false
	}
	return false, false
}

// await waits until a box is what it shall be since it had that generation.
func (w *waiting) await(ctx context.Context, c *client.Client, d control.Box) (control.Box, error) {
	ctx, cancel := context.WithTimeout(ctx, w.within)
	defer cancel()
	for {
		if done, well := settled(d, d.Generation); done {
			if !well {
				return d, fmt.Errorf("box %s is %s: %s; \"openclawctl box show %s\" tells more", d.ID, d.State, or(d.Message, "nobody said why"), d.ID)
			}
			return d, nil
		}
		select {
		case <-ctx.Done():
			return d, fmt.Errorf("box %s is %s, generation %s, after %s: look at \"openclawctl box show %s\"", d.ID, d.State, generations(d), w.within, d.ID)
		case <-time.After(pollBoxEvery):
		}
		next, err := getBox(ctx, c, d.ID)
		if err != nil && ctx.Err() == nil {
			return d, err
		}
		if err == nil {
			d = next.Box
		}
	}
}

// changeBox changes a box by the api.
func (a *app) changeBox(cmd *cobra.Command, id, action string, body any, w waiting) error {
	return a.postBox(cmd, client.Path("v1", "boxes", id, action), "box "+id, body, w)
}

// postBox sends what changes a box, waits if it is asked to, and shows what it is then.
func (a *app) postBox(cmd *cobra.Command, path, what string, body any, w waiting) error {
	if w.within <= 0 {
		return usageError{errors.New("--timeout must be positive")}
	}
	return a.api(cmd, func(ctx context.Context, c *client.Client) error {
		began := time.Now()
		r := &remote{c: c, key: a.key, stderr: cmd.ErrOrStderr()}
		var d control.Box
		err := r.change(ctx, client.Request{Method: http.MethodPost, Path: path, Body: body, What: what}, &d)
		if err != nil && !holds(err) || !w.wait {
			return a.showDone(cmd, err, d, boxTable([]control.Box{d}))
		}
		d, waitErr := w.await(ctx, c, d)
		if waitErr == nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "openclawctl: box %s is %s after %s\n", d.ID, d.State, time.Since(began).Round(time.Millisecond))
		}
		return errors.Join(a.show(cmd, d, boxTable([]control.Box{d})), err, waitErr)
	})
}

// boxChangeCommand completes cmd so that it does what the api calls action.
func (a *app) boxChangeCommand(action string, cmd *cobra.Command) *cobra.Command {
	var reason string
	var w waiting
	cmd.Use = action + " BOX_ID"
	cmd.Example = "  openclawctl box " + action + " b7k2mhc5wq3xj6n4z --reason \"asked for by its customer\" --wait"
	cmd.Args = cobra.ExactArgs(1)
	cmd.ValidArgsFunction = a.oneBoxID
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := needReason(reason); err != nil {
			return err
		}
		return a.changeBox(cmd, args[0], action, api.Reason{Reason: reason}, w)
	}
	reasonFlag(cmd, &reason)
	w.flags(cmd)
	return cmd
}

func (a *app) boxCreateCommand() *cobra.Command {
	var customer, reason string
	var w waiting
	cmd := calls("createBox getBox", &cobra.Command{
		Use:   "create --customer ID",
		Short: "Give a customer one more box",
		Long: `create gives a customer one more box, or another one for one that was destroyed. What the customer pays
stays. The first box of a customer comes by itself.`,
		Example: `  openclawctl box create --customer c4mzq7n2k5w3xj6ha --reason "its box was destroyed" --wait`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needReason(reason); err != nil {
				return err
			}
			return a.postBox(cmd, client.Path("v1", "customers", customer, "boxes"), "customer "+customer, api.Reason{Reason: reason}, w)
		},
	})
	a.customerFlag(cmd, &customer)
	reasonFlag(cmd, &reason)
	w.flags(cmd)
	return cmd
}

func (a *app) boxResizeCommand() *cobra.Command {
	var size, reason string
	var w waiting
	cmd := calls("resizeBox getBox", &cobra.Command{
		Use:   "resize BOX_ID --size TIER",
		Short: "Give a box the processor and memory of another tier",
		Long: `resize gives a box the resources of another tier than its customer has, until the customer gets
another one. The customer's tier, by which it pays and has tokens, follows from its subscription and stays.
--size own gives the box those of the customer's tier again.`,
		Example:           `  openclawctl box resize b7k2mhc5wq3xj6n4z --size team --reason "it runs out of memory" --wait`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.oneBoxID,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needReason(reason); err != nil {
				return err
			}
			if size == "own" {
				size = ""
			}
			return a.changeBox(cmd, args[0], "resize", api.BoxSize{Size: size, Reason: reason}, w)
		},
	})
	cmd.Flags().StringVar(&size, "size", "", "the tier whose resources it gets, or own (required)")
	_ = cmd.MarkFlagRequired("size") // fails only for a flag that is not there
	complete(cmd, "size", a.tierNames)
	reasonFlag(cmd, &reason)
	w.flags(cmd)
	return cmd
}

func (a *app) boxDestroyCommand() *cobra.Command {
	var reason string
	var sure bool
	var w waiting
	cmd := calls("destroyBox getBox", &cobra.Command{
		Use:   "destroy BOX_ID --yes",
		Short: "Destroy a box for ever",
		Long: `destroy revokes the tokens of a box, and has all that there is of it in the cluster removed. There is
no way back. Its customer, what that pays, and its other boxes stay. It is for admins.

Without --yes it asks, and wants the box's id as the answer.`,
		Example:           `  openclawctl box destroy b7k2mhc5wq3xj6n4z --reason "an additional one, not needed any more" --yes --wait`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.oneBoxID,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needReason(reason); err != nil {
				return err
			}
			if !sure {
				fmt.Fprintf(cmd.ErrOrStderr(), "This destroys box %s for ever. Its id, to go on: ", args[0])
				var answer string
				if _, err := fmt.Fscanln(cmd.InOrStdin(), &answer); err != nil || answer != args[0] {
					return usageError{errors.New("nothing was done: answer with the box's id, or say --yes")}
				}
			}
			return a.changeBox(cmd, args[0], "destroy", api.Reason{Reason: reason}, w)
		},
	})
	cmd.Flags().BoolVar(&sure, "yes", false, "do not ask")
	reasonFlag(cmd, &reason)
	w.flags(cmd)
	return cmd
}
